"""Masks carried from image to image by optical flow, and objects recognised again.

Points in each object are followed (Lucas and Kanade, in a pyramid) there and back; the object moves and grows as the
median of those that return says (Kalal, Mikolajczyk and Matas, ICPR 2010). An object whose points no longer return is
given up until a key frame finds it again: its mask would stay behind on the empty road. So is one that is no longer as
warm as it was: what covers it has points that return as well, and its mask would go along and grow with them. Warmth
tells, because lamps and headlights change the visible of the same object within a few images. A mask warped pixel by
pixel by a dense flow would leave a trail: the ground that an object uncovers has no counterpart in the image before.
The steps are summed up from the key frame on, so that a mask is resampled once, however many images lie between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from textdifuse_ros.localize.base import Instance, mask_box

REDUCTION = 2
SMALLEST, LARGEST = 48, 480  # sides of the images that points are followed in, the short and the long one [pixels]
MOST_POINTS, LEAST_POINTS = 60, 4  # of an object
WINDOW, LEVELS = 9, 3  # side of the patch around a point [pixels], halvings of the image
RETURN = 2.0  # how far off a point may end after there and back [pixels]
LEAST_KNOWN = 0.1  # share of its points that must return
STILL = 0.1  # change of brightness at its points up to which it still stands there, in deviations of the image
CHANGE = 0.4  # change of warmth at its points up to which it is still the same, in its contrasts
LEAST_CONTRAST = 0.2  # that is added to an object's own, in deviations of the image: less is lost in noise
GROWTH = 1.2  # most that an object may grow, or shrink, from one image to the next
KEPT_AREA = 0.2  # an object that shows less of its area is gone from the image
SAME_IOU = 0.3  # overlap from which on two masks of one phrase are the same object
COVERED = 0.5  # share of a mask under newer ones from which on it is one of them
LAST_TRACK = 65535  # instance maps are uint16


def flow_image(visible: np.ndarray, infrared: np.ndarray) -> np.ndarray:
    """The reduced image in which points are followed, and the reduced infrared.

    The former is grey: both sources, each weighed by its contrast. By night nearly all of it is the infrared.

    :param visible: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W]
    :returns: uint8 [2, h, w]
    """
    height, width = infrared.shape
    scale = max(1 / REDUCTION, SMALLEST / min(height, width))
    scale = min(scale, LARGEST / max(height, width), 1.0)
    size = max(WINDOW, round(width * scale)), max(WINDOW, round(height * scale))
    luma = cv2.cvtColor(cv2.resize(visible, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    thermal = cv2.resize(infrared, size, interpolation=cv2.INTER_AREA)
    contrasts = float(luma.std()), float(thermal.std())
    total = sum(contrasts) or 1.0
    return np.stack((cv2.addWeighted(luma, contrasts[0] / total, thermal, contrasts[1] / total, 0), thermal))


class Tracks:
    """Objects on their way from the image in which they were found to the current one.

    :param instances: as found
    :param size: height and width of the full image [pixels]
    :param image: :func:`flow_image` of the one they were found in
    :param earlier: in the same image: what it has :meth:`carried` there goes on as it was found
    :ivar image: that of the current one
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        size: tuple[int, int],
        image: np.ndarray,
        earlier: Tracks | None = None,
    ) -> None:
        # Pixels of the full image in one of the reduced.
        self._scale = np.array((size[1] / image.shape[2], size[0] / image.shape[1]), np.float32)
        known = {} if earlier is None else {id(item): mover for item, mover in earlier._given}
        warmth = _warmth(image[1])
        self._movers: list[_Mover] = [
            known.get(id(item)) or _Mover(item, warmth, self._scale) for item in instances if item.mask.any()
        ]
        self._given: list[tuple[Instance, _Mover]] = []
        self._size = size
        self.image = image

    def advance(self, image: np.ndarray) -> None:
        """Go on to the next image.

        :param image: its :func:`flow_image`, of the same size as before
        """
        if self._movers:
            at = [_reduced(mover.points(), self._scale) for mover in self._movers]
            there, known = _follow(self.image[0], image[0], np.concatenate(at))
            warmth = _warmth(image[1])
            first = 0
            for mover, points in zip(self._movers, at, strict=True):
                own = slice(first, first + len(points))
                first += len(points)
                still = _still(self.image[0], image[0], points)
                mover.step(known[own], ((there[own] - points) * self._scale)[known[own]], still)
                mover.compare(warmth, self._scale)
        self.image = image

    def carried(self) -> tuple[Instance, ...]:
        """The objects where they are now; those that left the image or were lost are missing."""
        moved = ((mover.instance(self._size), mover) for mover in self._movers)
        self._given = [(item, mover) for item, mover in moved if item is not None]
        return tuple(item for item, _ in self._given)


def _follow(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points of one image are in the next, float32 [N, 2], and whether that is known, bool [N]."""
    there, went = _flow(before, after, points)
    back, came = _flow(after, before, there)
    return there, went & came & (np.linalg.norm(back - points, axis=1) < RETURN)


def _flow(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03)
    there, went, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points[:, None], np.empty(0), winSize=(WINDOW, WINDOW), maxLevel=LEVELS, criteria=stop
    )
    return np.asarray(there)[:, 0], np.asarray(went)[:, 0] > 0


def _reduced(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Points of the full image in the reduced one, float32 [N, 2]."""
    return ((points + 0.5) / scale - 0.5).astype(np.float32)


def _warmth(infrared: np.ndarray) -> np.ndarray:
    """How much warmer an image is than its mean, in mean deviations from it, float32 [h, w].

    A thermal camera's gain follows what it sees, so grey levels say little. (The median jumps where half of the image
    is cold sky.)
    """
    warmer = infrared.astype(np.float32) - float(infrared.mean())
    return warmer / max(float(cv2.norm(warmer, cv2.NORM_L1)) / warmer.size, 1.0)


def _values(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Those of a float32 image at points, float32 [N]; beyond its border those at it."""
    columns, rows = points.T[:, None]
    at = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(at)[0]


def _still(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> bool:
    """Whether two images are alike at points, those outside left out; not where none is inside."""
    height, width = after.shape
    columns, rows = points.round().astype(int).T
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    if not inside.any():
        return False
    at = rows[inside], columns[inside]
    return float(cv2.absdiff(before[at], after[at]).mean()) <= STILL * float(after.std())


class _Mover:
    """One object: the part of its mask within its box, and how far it came: ``x -> scale * x + shift``.

    :param warmth: :func:`_warmth` of the image it was found in
    :param scale: float32 [2], width and height of a pixel of that [pixels of the full image]
    :ivar found: the object as it was found
    """

    def __init__(self, found: Instance, warmth: np.ndarray, scale: np.ndarray) -> None:
        self.found = found
        left, top, right, bottom = map(int, mask_box(found.mask))
        self._corner = np.array((left, top), np.float32)
        self._crop = found.mask[top:bottom, left:right].astype(np.float32)
        rows, columns = np.nonzero(self._crop)
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_POINTS)).round().astype(int)
        self._points = np.stack((columns[chosen], rows[chosen]), 1).astype(np.float32) + self._corner
        self._scale = 1.0
        self._shift: np.ndarray = np.zeros(2)
        self._lost = False
        self._warmth = _values(warmth, _reduced(self._points, scale))
        # How far it stands out: within itself, and from points spread twice as far.
        middle = self._points.mean(0)
        around = _values(warmth, _reduced(middle + 2 * (self._points - middle), scale))
        own = float(self._warmth.std()) + abs(float(self._warmth.mean()) - float(around.mean()))
        self._contrast = own + LEAST_CONTRAST

    def points(self) -> np.ndarray:
        """Points in the object where it is now, float32 [N, 2], x and y [pixels]."""
        return (self._scale * self._points + self._shift).astype(np.float32)

    def step(self, known: np.ndarray, moved: np.ndarray, still: bool) -> None:
        """Go on with the median of its points.

        Where hardly any is known it stays if nothing changed there: points of an even surface cannot be followed.

        :param known: bool [N], which points were followed
        :param moved: float32 [M, 2], how far those came [pixels]
        """
        if len(moved) < max(LEAST_POINTS, LEAST_KNOWN * len(known)):
            self._lost |= not still
            return
        here = self.points()[known]
        middle, by = np.median(here, 0), np.median(moved, 0)
        before = np.linalg.norm(here - middle, axis=1)
        after = np.linalg.norm(here + moved - middle - by, axis=1)
        far = before > max(1.0, 0.5 * float(before.max()))
        growth = float(np.median(after[far] / before[far])) if np.count_nonzero(far) >= 2 * LEAST_POINTS else 1.0
        growth = min(max(growth, 1 / GROWTH), GROWTH)
        self._scale *= growth
        self._shift = growth * (self._shift - middle) + middle + by

    def compare(self, warmth: np.ndarray, scale: np.ndarray) -> None:
        """Give it up if it is not as warm as it was: something else is there.

        :param warmth: :func:`_warmth` of the current image
        :param scale: as when it was found
        """
        points = _reduced(self.points(), scale)
        inside = ((points >= 0) & (points <= np.array(warmth.shape[::-1]) - 1)).all(1)
        if inside.any():
            change = float(np.median((_values(warmth, points) - self._warmth)[inside]))
            self._lost |= abs(change) > CHANGE * self._contrast

    def instance(self, size: tuple[int, int]) -> Instance | None:
        """The object as it is now, None where it is gone.

        :param size: height and width of the image [pixels]
        """
        if self._lost:
            return None
        if self._scale == 1 and not self._shift.any():
            return self.found
        corner = self._scale * self._corner + self._shift
        start = np.floor(corner).astype(int) - 1
        extent = np.ceil(np.array(self._crop.shape[::-1]) * self._scale).astype(int) + 3
        x, y = corner - start
        matrix = np.array(((self._scale, 0, x), (0, self._scale, y)))
        moved = cv2.warpAffine(self._crop, matrix, (int(extent[0]), int(extent[1])), flags=cv2.INTER_LINEAR) > 0.5
        low, high = np.maximum(start, 0), np.minimum(start + extent, size[::-1])
        if (low >= high).any():
            return None
        part = moved[low[1] - start[1] : high[1] - start[1], low[0] - start[0] : high[0] - start[0]]
        if np.count_nonzero(part) < max(1.0, KEPT_AREA * np.count_nonzero(moved)):
            return None
        mask = np.zeros(size, bool)
        mask[low[1] : high[1], low[0] : high[0]] = part
        # The box moves as found: the mask's own is another one, and a tracker would see it jump at every key frame.
        edges = self._scale * np.reshape(self.found.box, (2, 2)) + self._shift
        left, top, right, bottom = np.clip(edges, 0, size[::-1]).ravel().tolist()
        return replace(self.found, mask=mask, box=(left, top, right, bottom))


class Identities:
    """Gives out track numbers 1 .. 65535, and the same one to the same object.

    After the last number it starts again, past those in use.
    """

    def __init__(self) -> None:
        self._next = 1

    def merge(self, old: Sequence[Instance], new: Sequence[Instance]) -> tuple[Instance, ...]:
        """New objects with the numbers of the old ones that they are; old ones not found again stay, uncovered.

        Pairs of one phrase are matched by falling overlap of their masks, greedily.

        :param old: carried to the same image as ``new``
        """
        overlaps = _overlaps(old, new)
        order = sorted(overlaps, key=lambda pair: -overlaps[pair])
        matched: dict[int, int] = {}
        taken: set[int] = set()
        for before, after in order:
            if overlaps[before, after] < SAME_IOU:
                break
            if before not in taken and after not in matched and old[before].phrase == new[after].phrase:
                matched[after] = before
                taken.add(before)
        used = {item.track for item in old}
        result = []
        for n, item in enumerate(new):
            track = old[matched[n]].track if n in matched else self._fresh(used)
            result.append(replace(item, track=track))
        covered = np.logical_or.reduce([item.mask for item in new]) if new else None
        for n, item in enumerate(old):
            if n not in taken and (covered is None or covered[item.mask].mean() < COVERED):
                result.append(item)
        return tuple(result)

    def _fresh(self, used: set[int]) -> int:
        while self._next in used:
            self._next = self._next % LAST_TRACK + 1
        track = self._next
        used.add(track)
        self._next = track % LAST_TRACK + 1
        return track


def _overlaps(old: Sequence[Instance], new: Sequence[Instance]) -> dict[tuple[int, int], float]:
    """Intersection over union of the pairs whose boxes meet."""
    found: dict[tuple[int, int], float] = {}
    areas = [np.count_nonzero(item.mask) for item in old], [np.count_nonzero(item.mask) for item in new]
    for n, one in enumerate(old):
        for m, other in enumerate(new):
            left, top = (int(max(one.box[i], other.box[i])) for i in (0, 1))
            right, bottom = (int(min(one.box[i], other.box[i]) + 0.999) for i in (2, 3))
            if left < right and top < bottom:
                both = np.count_nonzero(one.mask[top:bottom, left:right] & other.mask[top:bottom, left:right])
                if both:
                    found[n, m] = both / float(areas[0][n] + areas[1][m] - both)
    return found
