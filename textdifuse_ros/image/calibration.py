"""Estimation of the homography from infrared to visible pixels from pairs of images.

Infrared and visible images share little but the positions of edges: an edge may be bright on either side, or missing in
one image. Compared is therefore the direction of normalized gradients without its sign (Haber and Modersitzki,
"Intensity gradient based registration and fusion of multi-modal images", MICCAI 2006): with ``n = grad / sqrt(|grad|^2
+ eta^2)``, ``eta`` the mean gradient magnitude of the image, the score of two images is the correlation of
``(n_x + i n_y)^2``, 1 for equal images.

The cameras are rigidly mounted, so all pairs share one homography: their correlation surfaces are added before the peak
is located, and edges missing in one pair are found in another.

1. Coarse: for a set of scales and rotations, the translation by FFT correlation of small images.
2. Fine: over an image pyramid, the displacement of each block of a grid, summed over the pairs. A translation, a
   similarity, an affine map and a homography are fitted to the displacements by iterated robust least squares. The
   simplest model is chosen that no richer one clearly improves on: by 2 % of the score, and by two standard errors over
   the pairs. With few pairs a similarity is the richest model, since they cannot tell a perspective from chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.errors import CalibrationError

Pair = tuple[np.ndarray, np.ndarray]
"""Visible luma, uint8 [H, W], and infrared image, uint8 [h, w]."""

MODELS = ("translation", "similarity", "affine", "homography")
_COARSE_SIDE = 128
_SIDES = (192, 384, 768)
_GRID = (6, 5)  # columns and rows of blocks
_RADII = (4, 3, 2)  # search radius of an iteration at each level [pixel of that level]
_MAX_ITERATIONS = 4
_MIN_STEP = 0.03  # an iteration that moves no block by more ends a level [pixel]
_MIN_OVERLAP = 0.3
_COARSE_PAIRS = 8
_PAIR_RADIUS = 6  # search radius for the offset of a single pair [pixel]

MIN_RELIABLE_PAIRS = 6
"""Fewer pairs neither show how much they differ nor which model they need."""


@dataclass(frozen=True)
class Estimate:
    """An estimated homography.

    :ivar homography: float64 [3, 3], infrared pixel (x, y, 1) to visible pixel; the last entry is 1
    :ivar start: float64 [3, 3], the homography without registration, which ``scores_before`` refer to
    :ivar model: chosen one of :data:`MODELS`
    :ivar scores_before: float64 [N], score of each pair with ``start``
    :ivar scores: float64 [N], score of each pair with ``homography``; -1 .. 1, 1 for equal images, NaN without edges
    :ivar offsets: float64 [N, 2], remaining offset of each single pair [visible pixel]; NaN if unknown
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
        """Median distance of the pairs' offsets from their median [visible pixel]; NaN for fewer than two pairs."""
        known = _known(self.offsets)
        return float(np.median(np.hypot(*(known - np.median(known, 0)).T))) if len(known) > 1 else math.nan


def estimate_homography(
    pairs: Sequence[Pair],
    model: str = "auto",
    start: np.ndarray | None = None,
    report: Callable[[str], object] = lambda line: None,
) -> Estimate:
    """Estimate the homography that the pairs share.

    :param pairs: at least one, all different
    :param model: richest of :data:`MODELS` to fit, or ``auto``: homography, with fewer than
        :data:`MIN_RELIABLE_PAIRS` pairs similarity
    :param start: float64 [3, 3], initial homography; None searches over scales, rotations and translations
    :param report: called with a line of text after each stage
    :raises CalibrationError: no common edges found
    """
    begin = _fit_into(pairs[0])
    if start is None:
        start = _coarse(pairs, begin)
        report(f"coarse: {_summary(start)}")
    richest = model if model != "auto" else "homography" if len(pairs) >= MIN_RELIABLE_PAIRS else "similarity"
    ladder = MODELS[: MODELS.index(richest) + 1]
    found: dict[str, np.ndarray] = {}
    current = start
    for name in ladder:
        # A richer model starts from the result of the poorer one; only the first one needs the whole pyramid.
        current = _refine(pairs, current, name, (0, 1, 2) if name == ladder[0] else (1, 2))
        found[name] = current
        report(f"{name}: {_summary(current)}")
    scores = {name: _scores(pairs, h) for name, h in found.items()}
    valid = np.isfinite(list(scores.values())).all(0)
    if not valid.any():
        raise CalibrationError("the pairs", "images of one scene each", "images without common edges")
    chosen = _simplest({name: values[valid] for name, values in scores.items()}) if model == "auto" else model
    homography = found[chosen] / found[chosen][2, 2]
    offsets = np.array([_offset(pair, homography) for pair in pairs])
    if chosen == "translation":
        homography = _whole_pixels(homography, offsets)
    means = {name: round(float(values[valid].mean()), 5) for name, values in scores.items()}
    before = _scores(pairs, begin)
    return Estimate(homography, begin, chosen, before, scores[chosen], offsets, means)


def _whole_pixels(homography: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Round a pure translation to whole pixels if the fraction is below two standard errors over the pairs.

    Interpolation softens the image, which an insignificant fraction is not worth.
    """
    known = _known(offsets)
    if len(known) < 2 or not np.allclose(homography[:2, :2], np.eye(2), atol=1e-9):
        return homography
    tolerance = 2 * 1.2533 * 1.4826 * np.median(np.abs(known - np.median(known, 0)), 0) / math.sqrt(len(known))
    whole = np.rint(homography[:2, 2])
    if np.any(np.abs(homography[:2, 2] - whole) > np.clip(tolerance, 0, 0.25)):
        return homography
    return np.array([[1, 0, whole[0]], [0, 1, whole[1]], [0, 0, 1.0]])


def _simplest(scores: dict[str, np.ndarray]) -> str:
    """Choose the first model that the best one does not clearly improve on."""
    best = max(scores, key=lambda name: float(scores[name].mean()))
    for name, values in scores.items():
        gain = scores[best] - values
        error = gain.std(ddof=1) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
        if float(gain.mean()) <= max(0.02 * abs(float(values.mean())), 2 * error):
            return name
    return best


def _edge_field(image: np.ndarray) -> np.ndarray:
    """Edge directions without sign, float32 [2, H, W]: real and imaginary part of ``(n_x + i n_y)^2``."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)
    along_x = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
    square = along_x * along_x + along_y * along_y
    eta = float(np.sqrt(square).mean())
    return np.stack((along_x * along_x - along_y * along_y, 2 * along_x * along_y)) / (square + eta * eta + 1e-6)


def _fit_into(pair: Pair) -> np.ndarray:
    """Homography that fits the infrared image into the visible one, centered; the identity for equal sizes."""
    (height, width), (ir_height, ir_width) = pair[0].shape, pair[1].shape
    scale = min(width / ir_width, height / ir_height)
    x, y = (width - scale * ir_width) / 2, (height - scale * ir_height) / 2
    return np.array([[scale, 0, x + (scale - 1) / 2], [0, scale, y + (scale - 1) / 2], [0, 0, 1]], np.float64)


def _scaled(pair: Pair, homography: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Scale a pair to at most ``side`` pixels: visible, warped infrared, its mask, and the scale (at most 1)."""
    visible, infrared = pair
    scale = min(1.0, side / max(visible.shape))
    size = (max(1, round(visible.shape[1] * scale)), max(1, round(visible.shape[0] * scale)))
    # Coordinates refer to pixel centers, which move by half of the change in scale.
    shrink = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
    small = cv2.resize(visible, size, interpolation=cv2.INTER_AREA) if scale < 1 else visible
    # Blur before downscaling to avoid aliasing.
    zoom = scale * math.sqrt(abs(np.linalg.det(homography[:2, :2])))
    if zoom < 0.75:
        infrared = cv2.GaussianBlur(infrared, (0, 0), 0.4 / zoom)
    total = shrink @ homography
    warped = cv2.warpPerspective(infrared, total, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    ones = np.full(infrared.shape, 255, np.uint8)
    mask = cv2.warpPerspective(ones, total, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    mask = cv2.erode(mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=255)
    return small, warped, (mask > 0).astype(np.float32), scale


def _fields(pair: Pair, homography: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Edge fields of visible and warped infrared at a size of at most ``side``, the mask, and the scale."""
    visible, warped, mask, scale = _scaled(pair, homography, side)
    return _edge_field(visible), _edge_field(warped) * mask, mask, scale


def _coarse(pairs: Sequence[Pair], begin: np.ndarray) -> np.ndarray:
    """Search a set of scales and rotations, each with its best translation."""
    same_size = all(pair[0].shape == pair[1].shape for pair in pairs)
    scales = 2.0 ** (np.arange(-4, 5) / 16 if same_size else np.arange(-16, 17) / 16)
    sample = [pairs[round(i)] for i in np.linspace(0, len(pairs) - 1, min(len(pairs), _COARSE_PAIRS))]
    spectra = [_spectrum(_fields(pair, begin, _COARSE_SIDE)[0]) for pair in sample]
    best_score, best = -math.inf, begin
    for scale in scales:
        for degrees in (-3.0, 0.0, 3.0):
            rotated = _about_center(sample[0][0].shape, float(scale), degrees) @ begin
            score, translation = _translation(sample, spectra, rotated)
            # Of two equally good answers, prefer the one closer to no change.
            score -= 0.002 * abs(math.log2(scale)) + 0.0005 * abs(degrees)
            if score > best_score:
                best_score, best = score, translation @ rotated
    return best


def _about_center(shape: tuple[int, ...], scale: float, degrees: float) -> np.ndarray:
    center = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    return np.vstack((cv2.getRotationMatrix2D(center, degrees, scale), [0, 0, 1]))


def _spectrum(field: np.ndarray) -> np.ndarray:
    """Spectrum of a normalized field, complex64, zero-padded to twice its size."""
    padded = np.zeros((2 * _COARSE_SIDE, 2 * _COARSE_SIDE, 2), np.float32)
    padded[: field.shape[1], : field.shape[2]] = field.transpose(1, 2, 0)
    norm = math.sqrt(float((field * field).sum()))
    return cv2.dft(padded).view(np.complex64)[..., 0] / np.float32(norm or 1.0)


def _translation(
    pairs: Sequence[Pair], spectra: Sequence[np.ndarray], homography: np.ndarray
) -> tuple[float, np.ndarray]:
    """Peak of the summed correlation of the pairs, and the translation at which it occurs."""
    total = np.zeros((2 * _COARSE_SIDE, 2 * _COARSE_SIDE), np.complex64)
    scales = []
    for pair, spectrum in zip(pairs, spectra, strict=True):
        _, infrared, _, scale = _fields(pair, homography, _COARSE_SIDE)
        total += spectrum * np.conj(_spectrum(infrared))
        scales.append(scale)
    correlation = np.fft.ifft2(total).real / len(pairs)
    radius = _COARSE_SIDE // 4
    rows = np.r_[0 : radius + 1, len(correlation) - radius : len(correlation)]
    window = correlation[np.ix_(rows, rows)]
    at = np.unravel_index(int(np.argmax(window)), window.shape)
    y, x = (int(rows[i]) - (len(correlation) if rows[i] > radius else 0) for i in at)
    scale = float(np.mean(scales))
    return float(window[at]), np.array([[1, 0, x / scale], [0, 1, y / scale], [0, 0, 1.0]])


def _refine(pairs: Sequence[Pair], homography: np.ndarray, model: str, levels: Sequence[int]) -> np.ndarray:
    """Refine a homography by a model fitted to block displacements, from coarse to fine levels."""
    largest = max(max(pair[0].shape) for pair in pairs)
    for level in levels:
        if level and _SIDES[level - 1] >= largest:
            break
        for _ in range(_MAX_ITERATIONS):
            points, displacements, weights = _blocks(pairs, homography, _SIDES[level], _RADII[level])
            if not len(points):
                break
            step = _fit(points, displacements, weights, model)
            homography = step @ homography
            if float(np.abs(_apply(step, points) - points).max()) < _MIN_STEP:
                break
    return homography


def _blocks(
    pairs: Sequence[Pair], homography: np.ndarray, side: int, radius: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Block displacements: centers [N, 2] and displacements [N, 2] in visible pixels, weights [N]."""
    columns, rows = _GRID
    surface = np.zeros((rows, columns, 2 * radius + 1, 2 * radius + 1))
    sizes, scales = [], []
    for pair in pairs:
        visible, infrared, _, scale = _fields(pair, homography, side)
        norm = math.sqrt(float((visible * visible).mean()) * float((infrared * infrared).mean()))
        if norm > 0:
            surface += _surfaces(visible, infrared, radius) / norm
        sizes.append(pair[0].shape[::-1])
        scales.append(scale)
    width, height = np.mean(sizes, 0)
    scale = float(np.mean(scales))
    points, displacements, weights = [], [], []
    for row in range(rows):
        for column in range(columns):
            peak = _peak(surface[row, column])
            if peak is not None:
                points.append(((column + 0.5) / columns * width - 0.5, (row + 0.5) / rows * height - 0.5))
                displacements.append((peak[0] / scale, peak[1] / scale))
                weights.append(peak[2])
    return np.array(points).reshape(-1, 2), np.array(displacements).reshape(-1, 2), np.array(weights)


def _surfaces(visible: np.ndarray, infrared: np.ndarray, radius: int) -> np.ndarray:
    """Correlation of each visible block with infrared shifted by -R .. R, float64 [rows, columns, 2R + 1, 2R + 1]."""
    height, width = visible.shape[1:]
    padded = [cv2.copyMakeBorder(plane, radius, radius, radius, radius, cv2.BORDER_CONSTANT) for plane in infrared]
    surface = np.zeros((_GRID[1], _GRID[0], 2 * radius + 1, 2 * radius + 1))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            window = (slice(radius - dy, radius - dy + height), slice(radius - dx, radius - dx + width))
            product = visible[0] * padded[0][window] + visible[1] * padded[1][window]
            surface[:, :, dy + radius, dx + radius] = cv2.resize(product, _GRID, interpolation=cv2.INTER_AREA)
    return surface


def _peak(surface: np.ndarray) -> tuple[float, float, float] | None:
    """Subpixel position (x, y) of a correlation peak, and its height above the median; None at the border."""
    y, x = np.unravel_index(int(np.argmax(surface)), surface.shape)
    radius = surface.shape[0] // 2
    if not (0 < y < 2 * radius and 0 < x < 2 * radius):
        return None
    middle = float(np.median(surface))
    if surface[y, x] <= max(middle, 0.0):
        return None
    across, down = _vertex(surface[y, x - 1 : x + 2]), _vertex(surface[y - 1 : y + 2, x])
    return int(x) - radius + across, int(y) - radius + down, float(surface[y, x]) - middle


def _vertex(three: np.ndarray) -> float:
    """Position of the vertex of the parabola through three values, -0.5 .. 0.5."""
    left, middle, right = map(float, three)
    bend = left - 2 * middle + right
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, 0.5 * (left - right) / bend))


def _fit(points: np.ndarray, displacements: np.ndarray, weights: np.ndarray, model: str) -> np.ndarray:
    """Fit a model to displacements by iteratively reweighted least squares with Tukey's biweight."""
    required = {"translation": 1, "similarity": 3, "affine": 5, "homography": 8}[model]
    if len(points) < required:
        model = "translation"
    middle, size = points.mean(0), max(float(points.std()), 1.0)
    to_unit = np.array([[1 / size, 0, -middle[0] / size], [0, 1 / size, -middle[1] / size], [0, 0, 1]])
    unit, target = (points - middle) / size, (points + displacements - middle) / size
    robust = np.ones(len(points))
    step = np.eye(3)
    for _ in range(10):
        step = _least_squares(unit, target, np.sqrt(weights * robust), model)
        distance = np.hypot(*(_apply(step, unit) - target).T) * size
        limit = max(4.685 * 1.48 * float(np.median(distance)), 0.5)
        robust = np.clip(1 - (distance / limit) ** 2, 0, None) ** 2 + 1e-6
    return np.linalg.inv(to_unit) @ step @ to_unit


def _apply(step: np.ndarray, points: np.ndarray) -> np.ndarray:
    mapped = np.column_stack((points, np.ones(len(points)))) @ step.T
    return mapped[:, :2] / mapped[:, 2:]


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


def _score(pair: Pair, homography: np.ndarray) -> float:
    """Correlation of the edges of a pair, -1 .. 1; NaN without edges or with little overlap."""
    visible, infrared, mask, _ = _fields(pair, homography, _SIDES[1])
    if float(mask.mean()) < _MIN_OVERLAP:
        return math.nan
    visible = visible * mask
    norm = math.sqrt(float((visible * visible).sum()) * float((infrared * infrared).sum()))
    return float((visible * infrared).sum()) / norm if norm > 0 else math.nan


def _scores(pairs: Sequence[Pair], homography: np.ndarray) -> np.ndarray:
    return np.array([_score(pair, homography) for pair in pairs])


def _offset(pair: Pair, homography: np.ndarray) -> np.ndarray:
    """Remaining offset of a single pair [visible pixel]; NaN if it has no clear peak."""
    visible, infrared, _, scale = _fields(pair, homography, _SIDES[1])
    peak = _peak(_surfaces(visible, infrared, _PAIR_RADIUS).sum((0, 1)))
    return np.full(2, np.nan) if peak is None else np.array(peak[:2]) / scale


def _known(offsets: np.ndarray) -> np.ndarray:
    return offsets[np.isfinite(offsets).all(1)]


def _summary(h: np.ndarray) -> str:
    h = h / h[2, 2]
    scale = math.sqrt(abs(float(np.linalg.det(h[:2, :2]))))
    degrees = math.degrees(math.atan2(h[1, 0], h[0, 0]))
    return f"shift {h[0, 2]:+.2f}, {h[1, 2]:+.2f} px, scale {scale:.4f}, rotation {degrees:+.2f} deg"
