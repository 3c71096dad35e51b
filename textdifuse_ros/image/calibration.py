"""The homography from infrared to visible pixels, estimated from pairs of images that show the same scenes.

Infrared and visible differ in everything but the places of edges: an edge may be bright on either side, or missing in
one of them. So what is compared is the direction of normalized gradients without its sign (Haber and Modersitzki,
"Intensity gradient based registration and fusion of multi-modal images", MICCAI 2006): with ``n = grad / sqrt(|grad|^2
+ eta^2)``, ``eta`` the mean strength of the image's gradient, the score of two images is the correlation of
``(n_x + i n_y)^2``, 1 for equal images.

The cameras stand still to one another, so all pairs share one homography: their correlation surfaces are added before a
peak is looked for, and what is missing in one pair is found in another.

1. Coarse: over scales and turns, a translation by one correlation over the whole of small images.
2. Fine: over a pyramid, the displacement of each block of a grid, all pairs added; through these a translation, a
   similarity, an affine map and a homography, each by robust least squares and repeated. The simplest of them is taken
   that no other one clearly betters: by a fiftieth of the score, and by two standard errors over the pairs. A few pairs
   cannot tell a perspective from chance; of them it is a similarity at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.errors import CalibrationError

Pair = tuple[np.ndarray, np.ndarray]
"""Visible luma and infrared, uint8 [H, W] and [h, w]."""

MODELS = ("translation", "similarity", "affine", "homography")
_COARSE_SIDE = 128
_SIDES = (192, 384, 768)
_GRID = (6, 5)  # columns and rows of blocks
_REACHES = (4, 3, 2)  # largest displacement looked for in one round of each level [its pixels]
_ROUNDS = 4
_STEP = 0.03  # a round that moves all blocks by less ends a level [pixels]
_LEAST_OVERLAP = 0.3
_COARSE_PAIRS = 8
_FREE = 6  # reach of one pair alone [pixels]

MIN_RELIABLE_PAIRS = 6
"""Fewer pairs do not tell how far they differ, nor which map they need."""


@dataclass(frozen=True)
class Estimate:
    """What was found.

    :ivar homography: float64 [3, 3], infrared pixel (x, y, 1) to visible pixel; its last number is 1
    :ivar model: the one of :data:`MODELS` that was taken
    :ivar scores_before: of each pair, with ``start``
    :ivar scores: of each pair, with ``homography``; -1 .. 1, 1 for equal images; NaN for a pair without edges
    :ivar offsets: float64 [N, 2]: what each pair alone would still be moved by [visible pixels]; NaN likewise
    :ivar candidates: mean score by model
    """

    homography: np.ndarray
    start: np.ndarray
    model: str
    scores_before: np.ndarray
    scores: np.ndarray
    offsets: np.ndarray
    candidates: dict[str, float]

    @property
    def spread(self) -> float:
        """Median over the pairs of how far each alone is from the common answer [visible pixels]; NaN of one alone."""
        known = _known(self.offsets)
        return float(np.median(np.hypot(*(known - np.median(known, 0)).T))) if len(known) > 1 else math.nan


def estimate_homography(
    pairs: Sequence[Pair],
    model: str = "auto",
    start: np.ndarray | None = None,
    report: Callable[[str], object] = lambda line: None,
) -> Estimate:
    """Find the homography that the pairs share.

    :param pairs: at least one, no two of them the same; their sizes may differ where their pixels count from one corner
        of the same cameras
    :param model: the richest of :data:`MODELS` that is fitted, or ``auto``; that is a similarity at most where there
        are fewer pairs than :data:`MIN_RELIABLE_PAIRS`
    :param start: float64 [3, 3] to begin from; None searches over scales, turns and translations
    :param report: takes a line on each stage
    :raises CalibrationError: the images have nothing in common that can be found
    """
    begin = _fit_into(pairs[0])
    if start is None:
        start = _coarse(pairs, begin)
        report(f"coarse: {_in_words(start)}")
    richest = model if model != "auto" else "homography" if len(pairs) >= MIN_RELIABLE_PAIRS else "similarity"
    ladder = MODELS[: MODELS.index(richest) + 1]
    found: dict[str, np.ndarray] = {}
    current = start
    for name in ladder:
        # A richer model begins where the poorer one ended; only the first goes through the whole pyramid.
        current = _refine(pairs, current, name, (0, 1, 2) if name == ladder[0] else (1, 2))
        found[name] = current
        report(f"{name}: {_in_words(current)}")
    scores = {name: _scores(pairs, h) for name, h in found.items()}
    telling = np.isfinite(list(scores.values())).all(0)
    if not telling.any():
        found_nothing = "images without edges, or that no homography brings together"
        raise CalibrationError("the pairs", "images of one scene each", found_nothing)
    chosen = _simplest({name: values[telling] for name, values in scores.items()}) if model == "auto" else model
    homography = found[chosen] / found[chosen][2, 2]
    offsets = np.array([_offset(pair, homography) for pair in pairs])
    if chosen == "translation":
        homography = _whole_pixels(homography, offsets)
    means = {name: round(float(values[telling].mean()), 5) for name, values in scores.items()}
    before = _scores(pairs, begin)
    return Estimate(homography, begin, chosen, before, scores[chosen], offsets, means)


def _whole_pixels(homography: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """A shift of one scale by whole pixels, where the pairs cannot tell the one found from it.

    Interpolation softens the image; it is not worth its price for a fraction below two standard errors of the mean
    over the pairs.
    """
    known = _known(offsets)
    if len(known) < 2 or not np.allclose(homography[:2, :2], np.eye(2), atol=1e-9):
        return homography
    doubt = 2 * 1.2533 * 1.4826 * np.median(np.abs(known - np.median(known, 0)), 0) / math.sqrt(len(known))
    whole = np.rint(homography[:2, 2])
    if np.any(np.abs(homography[:2, 2] - whole) > np.clip(doubt, 0, 0.25)):
        return homography
    return np.array([[1, 0, whole[0]], [0, 1, whole[1]], [0, 0, 1.0]])


def _simplest(scores: dict[str, np.ndarray]) -> str:
    """The first model that the best one does not clearly better."""
    best = max(scores, key=lambda name: float(scores[name].mean()))
    for name, values in scores.items():
        gain = scores[best] - values
        error = gain.std(ddof=1) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
        if float(gain.mean()) <= max(0.02 * abs(float(values.mean())), 2 * error):
            return name
    return best


def edge_field(image: np.ndarray) -> np.ndarray:
    """Directions of edges without their sign, float32 [2, H, W]: real and imaginary part of ``(n_x + i n_y)^2``."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)
    along_x = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
    square = along_x * along_x + along_y * along_y
    eta = float(np.sqrt(square).mean())
    return np.stack((along_x * along_x - along_y * along_y, 2 * along_x * along_y)) / (square + eta * eta + 1e-6)


def _fit_into(pair: Pair) -> np.ndarray:
    """Infrared onto visible without knowledge: the same corner where they are of one size, else centred and fitted."""
    (height, width), (ir_height, ir_width) = pair[0].shape, pair[1].shape
    scale = min(width / ir_width, height / ir_height)
    x, y = (width - scale * ir_width) / 2, (height - scale * ir_height) / 2
    return np.array([[scale, 0, x + (scale - 1) / 2], [0, scale, y + (scale - 1) / 2], [0, 0, 1]], np.float64)


def _scaled(pair: Pair, homography: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Visible, moved infrared, its mask, all at a size of ``side`` at most; and that size as a share of the whole."""
    visible, infrared = pair
    share = min(1.0, side / max(visible.shape))
    size = (max(1, round(visible.shape[1] * share)), max(1, round(visible.shape[0] * share)))
    # Pixels are areas: their centers move by half the scale.
    shrink = np.array([[share, 0, (share - 1) / 2], [0, share, (share - 1) / 2], [0, 0, 1]])
    small = cv2.resize(visible, size, interpolation=cv2.INTER_AREA) if share < 1 else visible
    # What becomes smaller is first made smooth, lest it alias.
    zoom = share * math.sqrt(abs(np.linalg.det(homography[:2, :2])))
    if zoom < 0.75:
        infrared = cv2.GaussianBlur(infrared, (0, 0), 0.4 / zoom)
    whole = shrink @ homography
    moved = cv2.warpPerspective(infrared, whole, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    ones = np.full(infrared.shape, 255, np.uint8)
    mask = cv2.warpPerspective(ones, whole, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    mask = cv2.erode(mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=255)
    return small, moved, (mask > 0).astype(np.float32), share


def _fields(pair: Pair, homography: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    visible, moved, mask, share = _scaled(pair, homography, side)
    return edge_field(visible), edge_field(moved) * mask, mask, share


def _coarse(pairs: Sequence[Pair], begin: np.ndarray) -> np.ndarray:
    """The best of a set of scales and turns, each with its best translation."""
    same = all(pair[0].shape == pair[1].shape for pair in pairs)
    scales = 2.0 ** (np.arange(-4, 5) / 16 if same else np.arange(-16, 17) / 16)
    some = [pairs[round(i)] for i in np.linspace(0, len(pairs) - 1, min(len(pairs), _COARSE_PAIRS))]
    spectra = [_spectrum(_fields(pair, begin, _COARSE_SIDE)[0]) for pair in some]
    best, answer = -math.inf, begin
    for scale in scales:
        for degrees in (-3.0, 0.0, 3.0):
            turned = _about_center(some[0][0].shape, float(scale), degrees) @ begin
            score, move = _translation(some, spectra, turned)
            # Nothing changed is the likelier answer where two are as good.
            score -= 0.002 * abs(math.log2(scale)) + 0.0005 * abs(degrees)
            if score > best:
                best, answer = score, move @ turned
    return answer


def _about_center(shape: tuple[int, ...], scale: float, degrees: float) -> np.ndarray:
    center = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    return np.vstack((cv2.getRotationMatrix2D(center, degrees, scale), [0, 0, 1]))


def _spectrum(field: np.ndarray) -> np.ndarray:
    """The spectrum of a field divided by the field's norm, complex64, with room for a translation by half."""
    padded = np.zeros((2 * _COARSE_SIDE, 2 * _COARSE_SIDE, 2), np.float32)
    padded[: field.shape[1], : field.shape[2]] = field.transpose(1, 2, 0)
    norm = math.sqrt(float((field * field).sum()))
    return cv2.dft(padded).view(np.complex64)[..., 0] / np.float32(norm or 1.0)


def _translation(
    pairs: Sequence[Pair], spectra: Sequence[np.ndarray], homography: np.ndarray
) -> tuple[float, np.ndarray]:
    """The translation at which the pairs' correlations, added, have their peak; and that peak."""
    total = np.zeros((2 * _COARSE_SIDE, 2 * _COARSE_SIDE), np.complex64)
    shares = []
    for pair, spectrum in zip(pairs, spectra, strict=True):
        _, warm, _, share = _fields(pair, homography, _COARSE_SIDE)
        total += spectrum * np.conj(_spectrum(warm))
        shares.append(share)
    correlation = np.fft.ifft2(total).real / len(pairs)
    reach = _COARSE_SIDE // 4
    rows = np.r_[0 : reach + 1, len(correlation) - reach : len(correlation)]
    window = correlation[np.ix_(rows, rows)]
    at = np.unravel_index(int(np.argmax(window)), window.shape)
    y, x = (int(rows[i]) - (len(correlation) if rows[i] > reach else 0) for i in at)
    share = float(np.mean(shares))
    return float(window[at]), np.array([[1, 0, x / share], [0, 1, y / share], [0, 0, 1.0]])


def _refine(pairs: Sequence[Pair], homography: np.ndarray, model: str, levels: Sequence[int]) -> np.ndarray:
    """Fit a model to the blocks' displacements, from small images to large ones."""
    largest = max(max(pair[0].shape) for pair in pairs)
    for level in levels:
        if level and _SIDES[level - 1] >= largest:
            break
        for _ in range(_ROUNDS):
            points, moves, weights = _blocks(pairs, homography, _SIDES[level], _REACHES[level])
            if not len(points):
                break
            step = _fit(points, moves, weights, model)
            homography = step @ homography
            if float(np.abs(_moved(step, points) - points).max()) < _STEP:
                break
    return homography


def _blocks(
    pairs: Sequence[Pair], homography: np.ndarray, side: int, reach: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Displacements of the blocks of a grid: centers [N, 2] and displacements [N, 2] in visible pixels, weights [N]."""
    columns, rows = _GRID
    surface = np.zeros((rows, columns, 2 * reach + 1, 2 * reach + 1))
    sizes, shares = [], []
    for pair in pairs:
        seen, warm, _, share = _fields(pair, homography, side)
        norm = math.sqrt(float((seen * seen).mean()) * float((warm * warm).mean()))
        if norm > 0:
            surface += _surfaces(seen, warm, reach) / norm
        sizes.append(pair[0].shape[::-1])
        shares.append(share)
    width, height = np.mean(sizes, 0)
    share = float(np.mean(shares))
    points, moves, weights = [], [], []
    for row in range(rows):
        for column in range(columns):
            peak = _peak(surface[row, column])
            if peak is not None:
                points.append(((column + 0.5) / columns * width - 0.5, (row + 0.5) / rows * height - 0.5))
                moves.append((peak[0] / share, peak[1] / share))
                weights.append(peak[2])
    return np.array(points).reshape(-1, 2), np.array(moves).reshape(-1, 2), np.array(weights)


def _surfaces(seen: np.ndarray, warm: np.ndarray, reach: int) -> np.ndarray:
    """Correlation of each block of ``seen`` with ``warm`` moved by -R .. R, float64 [rows, columns, 2R + 1, 2R + 1]."""
    height, width = seen.shape[1:]
    padded = [cv2.copyMakeBorder(plane, reach, reach, reach, reach, cv2.BORDER_CONSTANT) for plane in warm]
    surface = np.zeros((_GRID[1], _GRID[0], 2 * reach + 1, 2 * reach + 1))
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            window = (slice(reach - dy, reach - dy + height), slice(reach - dx, reach - dx + width))
            product = seen[0] * padded[0][window] + seen[1] * padded[1][window]
            surface[:, :, dy + reach, dx + reach] = cv2.resize(product, _GRID, interpolation=cv2.INTER_AREA)
    return surface


def _peak(surface: np.ndarray) -> tuple[float, float, float] | None:
    """Place (x, y) of a correlation's peak below one pixel, and how clear it is; None at the border or without one."""
    y, x = np.unravel_index(int(np.argmax(surface)), surface.shape)
    reach = surface.shape[0] // 2
    if not (0 < y < 2 * reach and 0 < x < 2 * reach):
        return None
    middle = float(np.median(surface))
    if surface[y, x] <= max(middle, 0.0):
        return None
    across, down = _vertex(surface[y, x - 1 : x + 2]), _vertex(surface[y - 1 : y + 2, x])
    return int(x) - reach + across, int(y) - reach + down, float(surface[y, x]) - middle


def _vertex(three: np.ndarray) -> float:
    """Place of the vertex of the parabola through three values, -0.5 .. 0.5."""
    left, middle, right = map(float, three)
    bend = left - 2 * middle + right
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, 0.5 * (left - right) / bend))


def _fit(points: np.ndarray, moves: np.ndarray, weights: np.ndarray, model: str) -> np.ndarray:
    """The map of a model that moves points by the moves, by least squares with Tukey's weights."""
    needed = {"translation": 1, "similarity": 3, "affine": 5, "homography": 8}[model]
    if len(points) < needed:
        model = "translation"
    middle, size = points.mean(0), max(float(points.std()), 1.0)
    to_unit = np.array([[1 / size, 0, -middle[0] / size], [0, 1 / size, -middle[1] / size], [0, 0, 1]])
    unit, target = (points - middle) / size, (points + moves - middle) / size
    robust = np.ones(len(points))
    step = np.eye(3)
    for _ in range(10):
        step = _least_squares(unit, target, np.sqrt(weights * robust), model)
        distance = np.hypot(*(_moved(step, unit) - target).T) * size
        limit = max(4.685 * 1.48 * float(np.median(distance)), 0.5)
        robust = np.clip(1 - (distance / limit) ** 2, 0, None) ** 2 + 1e-6
    return np.linalg.inv(to_unit) @ step @ to_unit


def _moved(step: np.ndarray, points: np.ndarray) -> np.ndarray:
    moved = np.column_stack((points, np.ones(len(points)))) @ step.T
    return moved[:, :2] / moved[:, 2:]


def _least_squares(unit: np.ndarray, target: np.ndarray, roots: np.ndarray, model: str) -> np.ndarray:
    x, y, u, v = *unit.T, *target.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    if model == "translation":
        total = (roots**2).sum()
        move = ((target - unit) * (roots**2)[:, None]).sum(0) / total
        return np.array([[1, 0, move[0]], [0, 1, move[1]], [0, 0, 1.0]])
    if model == "similarity":
        rows = np.vstack((np.column_stack((x, -y, one, zero)), np.column_stack((y, x, zero, one))))
    elif model == "affine":
        rows = np.vstack(
            (np.column_stack((x, y, one, zero, zero, zero)), np.column_stack((zero, zero, zero, x, y, one)))
        )
    else:
        rows = np.vstack(
            (
                np.column_stack((x, y, one, zero, zero, zero, -u * x, -u * y)),
                np.column_stack((zero, zero, zero, x, y, one, -v * x, -v * y)),
            )
        )
    scale = np.concatenate((roots, roots))
    found = np.linalg.lstsq(rows * scale[:, None], np.concatenate((u, v)) * scale, rcond=None)[0]
    if model == "similarity":
        a, b, s, t = found
        return np.array([[a, -b, s], [b, a, t], [0, 0, 1]])
    if model == "affine":
        return np.vstack((found.reshape(2, 3), [0, 0, 1]))
    return np.append(found, 1.0).reshape(3, 3)


def score(pair: Pair, homography: np.ndarray) -> float:
    """How well the edges of a pair lie over one another, -1 .. 1; NaN where the images hardly overlap."""
    seen, warm, mask, _ = _fields(pair, homography, _SIDES[1])
    if float(mask.mean()) < _LEAST_OVERLAP:
        return math.nan
    seen = seen * mask
    norm = math.sqrt(float((seen * seen).sum()) * float((warm * warm).sum()))
    return float((seen * warm).sum()) / norm if norm > 0 else math.nan


def _scores(pairs: Sequence[Pair], homography: np.ndarray) -> np.ndarray:
    return np.array([score(pair, homography) for pair in pairs])


def _offset(pair: Pair, homography: np.ndarray) -> np.ndarray:
    """What this pair alone would be moved by [visible pixels]; NaN where it does not tell."""
    seen, warm, _, share = _fields(pair, homography, _SIDES[1])
    peak = _peak(_surfaces(seen, warm, _FREE).sum((0, 1)))
    return np.full(2, np.nan) if peak is None else np.array(peak[:2]) / share


def _known(offsets: np.ndarray) -> np.ndarray:
    return offsets[np.isfinite(offsets).all(1)]


def _in_words(h: np.ndarray) -> str:
    h = h / h[2, 2]
    scale = math.sqrt(abs(float(np.linalg.det(h[:2, :2]))))
    degrees = math.degrees(math.atan2(h[1, 0], h[0, 0]))
    return f"shift {h[0, 2]:+.2f}, {h[1, 2]:+.2f} px, scale {scale:.4f}, turn {degrees:+.2f} deg"
