"""Tracking of masks by optical flow, and re-identification of objects.

Points in each object are tracked forward and backward (pyramidal Lucas-Kanade). The object moves and scales by the
median of the points that return to their start (Median Flow; Kalal, Mikolajczyk and Matas, ICPR 2010).

An object is lost until a key frame locates it again if its points no longer return (its mask would stay behind on the
empty road), or if it is no longer as warm as it was (something covers it whose points return, too, and its mask would
move with that). Warmth decides because lamps and headlights change the visible image within a few frames.

Warping masks by a dense flow would leave trails: the ground that an object uncovers has no counterpart in the previous
image. Steps are accumulated from the key frame, so that a mask is resampled only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from textdifuse_ros.localize.base import Instance, mask_box

REDUCTION = 2
MIN_SIDE, MAX_SIDE = 48, 480  # of the reduced images, shorter and longer side [pixels]
MAX_POINTS, MIN_POINTS = 60, 4  # of an object
WINDOW, LEVELS = 9, 3  # side of the patch around a point [pixels], levels of the pyramid
MAX_RETURN_ERROR = 2.0  # between start and end of a point tracked forward and backward [pixels]
MIN_TRACKED = 0.1  # share of an object's points that must return
MAX_STILL_CHANGE = 0.1  # of brightness at the points of an object that has not moved [standard deviations of the image]
MAX_WARMTH_CHANGE = 0.4  # at the points of an object [its thermal contrast]
CONTRAST_OFFSET = 0.2  # added to an object's thermal contrast, against noise [mean deviations of the image]
MAX_SCALE_STEP = 1.2  # of an object from one image to the next
MIN_VISIBLE_AREA = 0.2  # an object with a smaller share of its area inside the image has left it
SAME_IOU = 0.3  # minimum IoU of two masks of the same object
COVERED = 0.5  # minimum share of a mask under newer ones that replaces it
LAST_TRACK = 65535  # instance maps are uint16


def flow_image(visible: np.ndarray, infrared: np.ndarray) -> np.ndarray:
    """Compute the reduced images for tracking.

    Points are tracked in the mean of both sensors, weighted by their contrasts; by night it is nearly all infrared.

    :param visible: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W]
    :returns: uint8 [2, h, w], the weighted mean and the infrared
    """
    height, width = infrared.shape
    scale = max(1 / REDUCTION, MIN_SIDE / min(height, width))
    scale = min(scale, MAX_SIDE / max(height, width), 1.0)
    size = max(WINDOW, round(width * scale)), max(WINDOW, round(height * scale))
    luma = cv2.cvtColor(cv2.resize(visible, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    thermal = cv2.resize(infrared, size, interpolation=cv2.INTER_AREA)
    contrasts = float(luma.std()), float(thermal.std())
    total = sum(contrasts) or 1.0
    return np.stack((cv2.addWeighted(luma, contrasts[0] / total, thermal, contrasts[1] / total, 0), thermal))


class Tracks:
    """Tracks located objects from image to image.

    :param instances: as located
    :param size: height and width of the full image [pixels]
    :param image: :func:`flow_image` of the image they were located in
    :param earlier: tracks of the same image; instances that it returned from :meth:`carried` continue their tracks
    :ivar image: :func:`flow_image` of the current image
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        size: tuple[int, int],
        image: np.ndarray,
        earlier: Tracks | None = None,
    ) -> None:
        # Pixels of the full image per pixel of the reduced one, x and y.
        self._scale = np.array((size[1] / image.shape[2], size[0] / image.shape[1]), np.float32)
        known = {} if earlier is None else {id(item): track for item, track in earlier._returned}
        warmth = _warmth(image[1])
        self._tracks: list[_Track] = [
            known.get(id(item)) or _Track(item, warmth, self._scale) for item in instances if item.mask.any()
        ]
        self._returned: list[tuple[Instance, _Track]] = []
        self._size = size
        self.image = image

    def advance(self, image: np.ndarray) -> None:
        """Track the objects to the next image.

        :param image: its :func:`flow_image`, of the same size as before
        """
        if self._tracks:
            starts = [_reduced(track.points(), self._scale) for track in self._tracks]
            ends, valid = _track_points(self.image[0], image[0], np.concatenate(starts))
            warmth = _warmth(image[1])
            first = 0
            for track, points in zip(self._tracks, starts, strict=True):
                own = slice(first, first + len(points))
                first += len(points)
                still = _still(self.image[0], image[0], points)
                track.step(valid[own], ((ends[own] - points) * self._scale)[valid[own]], still)
                track.compare(warmth, self._scale)
        self.image = image

    def carried(self) -> tuple[Instance, ...]:
        """Return the objects at their current places, without those that left the image or were lost."""
        moved = ((track.instance(self._size), track) for track in self._tracks)
        self._returned = [(item, track) for item, track in moved if item is not None]
        return tuple(item for item, _ in self._returned)


def _track_points(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Track points to the next image and back; the new positions, float32 [N, 2], and their validity, bool [N]."""
    ends, forward = _flow(before, after, points)
    returned, backward = _flow(after, before, ends)
    return ends, forward & backward & (np.linalg.norm(returned - points, axis=1) < MAX_RETURN_ERROR)


def _flow(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03)
    ends, status, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points[:, None], np.empty(0), winSize=(WINDOW, WINDOW), maxLevel=LEVELS, criteria=stop
    )
    return np.asarray(ends)[:, 0], np.asarray(status)[:, 0] > 0


def _reduced(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Convert points from the full to the reduced image, float32 [N, 2]."""
    return ((points + 0.5) / scale - 0.5).astype(np.float32)


def _warmth(infrared: np.ndarray) -> np.ndarray:
    """Compute the deviation from the image's mean, in units of the mean absolute deviation, float32 [h, w].

    Grey levels cannot be compared between images because a thermal camera adapts its gain. The median would jump when
    half of the image is cold sky.
    """
    warmer = infrared.astype(np.float32) - float(infrared.mean())
    return warmer / max(float(cv2.norm(warmer, cv2.NORM_L1)) / warmer.size, 1.0)


def _values(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Interpolate a float32 image at points, float32 [N]; the border is replicated."""
    columns, rows = points.T[:, None]
    values = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values)[0]


def _still(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> bool:
    """Check whether two images agree at the points inside them; False if there are none."""
    height, width = after.shape
    columns, rows = points.round().astype(int).T
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    if not inside.any():
        return False
    at = rows[inside], columns[inside]
    return float(cv2.absdiff(before[at], after[at]).mean()) <= MAX_STILL_CHANGE * float(after.std())


class _Track:
    """One object: its mask, cropped, and its motion since it was located, ``x -> scale * x + shift``.

    :param located: the object as it was located
    :param warmth: :func:`_warmth` of the image it was located in
    :param scale: float32 [2], width and height of a reduced pixel [pixels of the full image]
    """

    def __init__(self, located: Instance, warmth: np.ndarray, scale: np.ndarray) -> None:
        self._located = located
        left, top, right, bottom = map(int, mask_box(located.mask))
        self._corner = np.array((left, top), np.float32)
        self._crop = located.mask[top:bottom, left:right].astype(np.float32)
        rows, columns = np.nonzero(self._crop)
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS)).round().astype(int)
        self._points = np.stack((columns[chosen], rows[chosen]), 1).astype(np.float32) + self._corner
        self._scale = 1.0
        self._shift: np.ndarray = np.zeros(2)
        self._lost = False
        self._warmth = _values(warmth, _reduced(self._points, scale))
        # Thermal contrast: variation within the object, plus difference to points spread twice as far.
        middle = self._points.mean(0)
        around = _values(warmth, _reduced(middle + 2 * (self._points - middle), scale))
        own = float(self._warmth.std()) + abs(float(self._warmth.mean()) - float(around.mean()))
        self._contrast = own + CONTRAST_OFFSET

    def points(self) -> np.ndarray:
        """Return points in the object at its current place, float32 [N, 2], x and y [pixels]."""
        return (self._scale * self._points + self._shift).astype(np.float32)

    def step(self, valid: np.ndarray, moved: np.ndarray, still: bool) -> None:
        """Move and scale by the median of the points.

        With too few points the object stays in place if the image did not change there: points on an even surface
        cannot be tracked. Otherwise it is lost.

        :param valid: bool [N], which points were tracked
        :param moved: float32 [M, 2], displacements of those [pixels]
        :param still: whether the image is unchanged at the points
        """
        if len(moved) < max(MIN_POINTS, MIN_TRACKED * len(valid)):
            self._lost |= not still
            return
        start = self.points()[valid]
        middle, shift = np.median(start, 0), np.median(moved, 0)
        before = np.linalg.norm(start - middle, axis=1)
        after = np.linalg.norm(start + moved - middle - shift, axis=1)
        far = before > max(1.0, 0.5 * float(before.max()))
        scale = float(np.median(after[far] / before[far])) if np.count_nonzero(far) >= 2 * MIN_POINTS else 1.0
        scale = min(max(scale, 1 / MAX_SCALE_STEP), MAX_SCALE_STEP)
        self._scale *= scale
        self._shift = scale * (self._shift - middle) + middle + shift

    def compare(self, warmth: np.ndarray, scale: np.ndarray) -> None:
        """Mark the object as lost if it is not as warm as when it was located.

        :param warmth: :func:`_warmth` of the current image
        :param scale: as in the constructor
        """
        points = _reduced(self.points(), scale)
        inside = ((points >= 0) & (points <= np.array(warmth.shape[::-1]) - 1)).all(1)
        if inside.any():
            change = float(np.median((_values(warmth, points) - self._warmth)[inside]))
            self._lost |= abs(change) > MAX_WARMTH_CHANGE * self._contrast

    def instance(self, size: tuple[int, int]) -> Instance | None:
        """Return the object at its current place, None if it left the image or was lost.

        :param size: height and width of the image [pixels]
        """
        if self._lost:
            return None
        if self._scale == 1 and not self._shift.any():
            return self._located
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
        if np.count_nonzero(part) < max(1.0, MIN_VISIBLE_AREA * np.count_nonzero(moved)):
            return None
        mask = np.zeros(size, bool)
        mask[low[1] : high[1], low[0] : high[0]] = part
        # Move the located box. The bounding box of the mask may differ from it, and would jump at every key frame.
        edges = self._scale * np.reshape(self._located.box, (2, 2)) + self._shift
        left, top, right, bottom = np.clip(edges, 0, size[::-1]).ravel().tolist()
        return replace(self._located, mask=mask, box=(left, top, right, bottom))


class Identities:
    """Assigns track numbers 1 .. 65535; an object keeps its number.

    After the last number it starts again with the numbers that are not in use.
    """

    def __init__(self) -> None:
        self._next = 1

    def merge(self, old: Sequence[Instance], new: Sequence[Instance]) -> tuple[Instance, ...]:
        """Match new objects to old ones and return both, each object once.

        Objects of one phrase are matched greedily by descending IoU of their masks. A matched new object takes over the
        number of the old one. Unmatched old objects are kept unless new ones cover them.

        :param old: tracked to the image of ``new``
        :param new: located in a key frame
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
            track = old[matched[n]].track if n in matched else self._next_free(used)
            result.append(replace(item, track=track))
        covered = np.logical_or.reduce([item.mask for item in new]) if new else None
        for n, item in enumerate(old):
            if n not in taken and (covered is None or covered[item.mask].mean() < COVERED):
                result.append(item)
        return tuple(result)

    def _next_free(self, used: set[int]) -> int:
        while self._next in used:
            self._next = self._next % LAST_TRACK + 1
        track = self._next
        used.add(track)
        self._next = track % LAST_TRACK + 1
        return track


def _overlaps(old: Sequence[Instance], new: Sequence[Instance]) -> dict[tuple[int, int], float]:
    """Compute the IoU of all pairs of overlapping masks, by their indices."""
    overlaps: dict[tuple[int, int], float] = {}
    areas = [np.count_nonzero(item.mask) for item in old], [np.count_nonzero(item.mask) for item in new]
    for n, one in enumerate(old):
        for m, other in enumerate(new):
            left, top = (int(max(one.box[i], other.box[i])) for i in (0, 1))
            right, bottom = (int(min(one.box[i], other.box[i]) + 0.999) for i in (2, 3))
            if left < right and top < bottom:
                both = np.count_nonzero(one.mask[top:bottom, left:right] & other.mask[top:bottom, left:right])
                if both:
                    overlaps[n, m] = both / float(areas[0][n] + areas[1][m] - both)
    return overlaps
