"""A localizer for streams: it processes key frames in its own thread; in between its masks are tracked.

One thread calls :meth:`KeyframeLocalizer.update`; settings may be changed from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from textdifuse_ros.config.base import validate
from textdifuse_ros.config.localizer import TrackingConfig
from textdifuse_ros.localize.base import Instance, Localization, Localizer
from textdifuse_ros.localize.prompt import Prompt, parse_prompt, resolve
from textdifuse_ros.localize.tracking import Identities, Tracks, flow_image

OFF, WAITING, LOCATED, STALE, FAILED = "off", "waiting", "located", "stale", "failed"
MAX_HISTORY = 128  # reduced images buffered while the localizer runs; about 20 MB


@dataclass(frozen=True)
class MaskProvenance:
    """Provenance of the masks of one image.

    :ivar text: the current text, as it was written
    :ivar state: ``off``: there is no text; ``waiting``: no result for this text yet; ``located``: there is a result,
        possibly without objects; ``stale``: the last result is too old; ``failed``: the localizer failed on the last
        key frame and there is no earlier result
    :ivar stamp: of the latest key frame in use [s]; an instance that was missed there has an older one
    :ivar localizer: see :attr:`.base.Localizer.name`
    :ivar seconds: processing time of that key frame [s]
    :ivar error: why the last key frame failed; empty if it did not
    """

    text: str = ""
    state: str = OFF
    stamp: float | None = None
    localizer: str = ""
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True, eq=False)
class Tracked:
    """The objects of one image of a stream.

    :ivar localization: empty without a valid result; its phrases are the current ones
    :ivar provenance: of the masks
    """

    localization: Localization
    provenance: MaskProvenance


@dataclass(frozen=True, eq=False)
class _Job:
    """A key frame; ``search`` identifies the text and the stream that it belongs to."""

    search: int
    stamp: float
    visible: np.ndarray
    infrared: np.ndarray
    image: np.ndarray
    prompt: Prompt


@dataclass(frozen=True, eq=False)
class _Result:
    """The result of a key frame, tracked to the image of stamp ``tracked_to``, then the latest one."""

    job: _Job
    tracks: Tracks
    seconds: float
    tracked_to: float


class KeyframeLocalizer:
    """Masks for every image of a stream from a localizer that is slower than the stream.

    Exceptions of the localizer are reported, and it is called again with the next key frame. The tracking is reset when
    stamps go back or the size of the images changes.

    :param localizer: owned by this object and closed by :meth:`close`
    :param config: rate of key frames and lifetime of masks
    :param clock: monotonic time for the rate of key frames [s]
    :param report: called with a line about each failure, from any thread
    """

    def __init__(
        self,
        localizer: Localizer,
        config: TrackingConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._localizer = localizer
        self._config = config or TrackingConfig()
        validate(self._config)
        self._clock = clock
        self._report = report
        # Shared by the threads; requires the lock.
        self._changed = threading.Condition()
        self._prompt = Prompt()
        self._search = 0
        self._due: float | None = None  # time of the next key frame; None for immediately
        self._slot: _Job | None = None  # the key frame to process next
        self._processing: _Job | None = None
        self._history: deque[tuple[float, np.ndarray]] = deque(maxlen=MAX_HISTORY)
        self._result: _Result | None = None
        self._error = ""
        self._closed = False
        # Used only by the caller of update.
        self._current_search = -1
        self._latest: _Result | None = None
        self._tracks: Tracks | None = None
        self._identities = Identities()
        self._last: tuple[float, tuple[int, int]] | None = None  # stamp and size of the previous image
        self._previous: tuple[float, np.ndarray] | None = None  # stamp and flow image of the previous tracked image
        self._thread = threading.Thread(target=self._run, name="localizer", daemon=True)
        self._thread.start()

    def set_prompt(self, text: str) -> None:
        """Change the text, from the next image on. If only strengths change, no new key frame is required.

        :param text: the prompt, as in ``person, car:0.5``
        :raises ConfigError: not a prompt, or an unknown phrase; the old text stays
        """
        prompt = parse_prompt(text)
        if self._localizer.vocabulary is not None:
            resolve(prompt, self._localizer.vocabulary)
        with self._changed:
            if prompt.names != self._prompt.names:
                self._reset()
            self._prompt = prompt

    def configure(self, config: TrackingConfig) -> None:
        """Change rate and lifetime, from the next image on.

        :param config: the new values
        :raises ConfigError: out of range; the old values stay
        """
        validate(config)
        with self._changed:
            self._config = config

    def update(self, stamp: float, visible: np.ndarray, infrared: np.ndarray) -> Tracked:
        """Find the objects of the next image; takes a few milliseconds for optical flow and never blocks.

        :param stamp: of the image [s]
        :param visible: uint8 [H, W, 3] RGB; must not be modified afterwards
        :param infrared: uint8 [H, W]; likewise
        """
        size = (infrared.shape[0], infrared.shape[1])
        with self._changed:
            if self._last is not None and (stamp < self._last[0] or size != self._last[1]):
                self._reset()
            self._last = stamp, size
            prompt, config, result, self._result = self._prompt, self._config, self._result, None
            if self._current_search != self._search:
                self._current_search, self._tracks, self._latest, self._previous = self._search, None, None, None
        if not prompt:
            return Tracked(Localization((), size, ()), MaskProvenance(prompt.text))
        image = flow_image(visible, infrared)
        self._merge(result, size, config)
        if self._tracks is not None:
            self._tracks.advance(image)
        self._previous = stamp, image
        self._submit(_Job(self._current_search, stamp, visible, infrared, image, prompt))
        objects = self._valid_objects(stamp, config)
        return Tracked(Localization(objects, size, prompt.phrases), self._provenance(prompt, stamp, config, objects))

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait until all submitted key frames are processed.

        :param timeout: longest wait [s]
        :returns: whether they are
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._slot is None and self._processing is None, timeout)

    def close(self) -> None:
        """Stop after the current key frame and close the localizer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._localizer.close()

    def _reset(self) -> None:
        """Discard all results, finished or pending; the next image is a key frame. Requires the lock."""
        self._search += 1
        self._due, self._slot, self._result, self._error = None, None, None, ""
        self._history.clear()

    def _merge(self, result: _Result | None, size: tuple[int, int], config: TrackingConfig) -> None:
        """Merge the result of a key frame into the tracks, in the previous image.

        Objects still valid in that image can be matched, even if they would be too old in the current one.
        """
        if result is None or result.job.search != self._current_search:
            return
        if self._previous is not None and result.tracked_to < self._previous[0]:
            # The result was finished before that image entered the history.
            result.tracks.advance(self._previous[1])
        old = self._valid_objects(self._previous[0], config) if self._previous is not None else ()
        merged = self._identities.merge(old, result.tracks.carried())
        self._tracks = Tracks(merged, size, result.tracks.image, self._tracks)
        self._latest = result

    def _submit(self, job: _Job) -> None:
        """Submit the image as a key frame if one is due; buffer its flow image while a key frame is processed."""
        now = self._clock()
        with self._changed:
            if job.search != self._search:
                return
            if self._due is None or now >= self._due:
                self._slot = job
                self._changed.notify_all()
            if self._processing is not None or self._slot is not None:
                self._history.append((job.stamp, job.image))

    def _valid_objects(self, stamp: float, config: TrackingConfig) -> tuple[Instance, ...]:
        """Return the tracked objects of the current image that are not too old."""
        if self._tracks is None:
            return ()
        objects = tuple(item for item in self._tracks.carried() if stamp - (item.stamp or 0.0) <= config.mask_lifetime)
        if not objects:
            self._tracks = None
        return objects

    def _provenance(
        self, prompt: Prompt, stamp: float, config: TrackingConfig, objects: tuple[Instance, ...]
    ) -> MaskProvenance:
        provenance = MaskProvenance(prompt.text, WAITING, None, self._localizer.name, None, self._error)
        if self._latest is None:
            return replace(provenance, state=FAILED) if self._error else provenance
        located_at = self._latest.job.stamp
        if stamp - located_at <= config.mask_lifetime or objects:
            return replace(provenance, state=LOCATED, stamp=located_at, seconds=self._latest.seconds)
        return replace(provenance, state=FAILED if self._error else STALE)

    def _run(self) -> None:
        """Process key frames until closed, in the localizer's thread."""
        while True:
            with self._changed:
                self._processing = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._slot is not None or self._closed)
                if self._closed or self._slot is None:
                    return
                job, self._slot = self._slot, None
                self._processing = job
                self._due = self._clock() + 1 / self._config.localize_rate
                while self._history and self._history[0][0] <= job.stamp:
                    self._history.popleft()
            self._process(job)

    def _process(self, job: _Job) -> None:
        begin = time.perf_counter()
        try:
            located = self._localizer.locate(job.visible, job.infrared, job.prompt)
            tracks = Tracks([replace(item, stamp=job.stamp) for item in located.instances], located.size, job.image)
            self._catch_up(job, tracks, time.perf_counter() - begin)
        except Exception as error:  # no failure of a localizer may end the stream
            line = " ".join(f"{type(error).__name__}: {error}".split())
            with self._changed:
                if job.search == self._search:
                    self._error = line
            self._report(f"the localizer {self._localizer.name} failed on the image of {job.stamp:.3f} s: {line}")

    def _catch_up(self, job: _Job, tracks: Tracks, seconds: float) -> None:
        """Track the masks to the latest image and publish the result to the caller of :meth:`update`."""
        tracked_to = job.stamp
        while True:
            with self._changed:
                if job.search != self._search:
                    return
                if not self._history:
                    self._result, self._error = _Result(job, tracks, seconds, tracked_to), ""
                    lifetime = self._config.mask_lifetime
                    break
                tracked_to, image = self._history.popleft()
            tracks.advance(image)
        if tracked_to - job.stamp > lifetime:
            age = f"{tracked_to - job.stamp:.2f} s when they were ready"
            remedy = "raise mask_lifetime, or use a faster localizer"
            self._report(f"the age of masks must be at most {lifetime:g} s (mask_lifetime), got {age}; {remedy}")
