"""A localizer beside a stream: it works on key frames in its own thread, and tracking moves its masks in between.

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
MAX_HISTORY = 128  # reduced images kept while the localizer works; about 20 MB


@dataclass(frozen=True)
class MaskProvenance:
    """What made the masks of one image.

    :ivar text: the text in force, as it was written
    :ivar state: ``off``: there is no text; ``waiting``: no result for this text yet; ``located``: a key frame's result
        is in force, also one that found nothing; ``stale``: the last result is too old; ``failed``: the localizer
        broke down on its last key frame and nothing of an earlier one is left
    :ivar stamp: stamp of the newest key frame in force [s]; each instance has its own, older where it was missed there
    :ivar localizer: what looked, see :attr:`.base.Localizer.name`
    :ivar seconds: how long it took for that key frame
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

    :ivar localization: empty where nothing is known; its phrases are those in force now
    :ivar provenance: of the masks
    """

    localization: Localization
    provenance: MaskProvenance


@dataclass(frozen=True, eq=False)
class _Job:
    """A key frame; ``search`` identifies the text and stream that it belongs to."""

    search: int
    stamp: float
    visible: np.ndarray
    infrared: np.ndarray
    image: np.ndarray
    prompt: Prompt


@dataclass(frozen=True, eq=False)
class _Result:
    """The result of a key frame, tracked to the newest image of that time, of stamp ``at``."""

    job: _Job
    tracks: Tracks
    seconds: float
    at: float


class KeyframeLocalizer:
    """Masks for every image of a stream from a localizer that is slower than the stream.

    Exceptions of the localizer are reported, and it tries again at the next key frame. When stamps go back or the size
    changes, everything is reset.

    :param localizer: owned from now on, closed by :meth:`close`
    :param config: rate of key frames and lifetime of masks
    :param clock: monotonic seconds, for the rate of key frames
    :param report: takes a line about every failure, from any thread
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
        # Shared by both threads, under the lock.
        self._changed = threading.Condition()
        self._prompt = Prompt()
        self._search = 0
        self._due: float | None = None  # when the next key frame is; None for at once
        self._slot: _Job | None = None
        self._looking: _Job | None = None
        self._history: deque[tuple[float, np.ndarray]] = deque(maxlen=MAX_HISTORY)
        self._result: _Result | None = None
        self._error = ""
        self._closed = False
        # Used by the caller of update only.
        self._in_force = -1
        self._latest: _Result | None = None
        self._tracks: Tracks | None = None
        self._identities = Identities()
        self._last: tuple[float, tuple[int, int]] | None = None
        self._before: tuple[float, np.ndarray] | None = None
        self._thread = threading.Thread(target=self._work, name="localizer", daemon=True)
        self._thread.start()

    def set_prompt(self, text: str) -> None:
        """Change the text from the next image on; changed strengths alone need no new key frame.

        :param text: the prompt, as in ``person, car:0.5``
        :raises ConfigError: not a prompt, or a phrase that the localizer does not know; the old text stays
        """
        prompt = parse_prompt(text)
        if self._localizer.vocabulary is not None:
            resolve(prompt, self._localizer.vocabulary)
        with self._changed:
            if prompt.names != self._prompt.names:
                self._forget()
            self._prompt = prompt

    def configure(self, config: TrackingConfig) -> None:
        """Change rate and lifetime from the next image on.

        :param config: the new values
        :raises ConfigError: out of range; the old values stay
        """
        validate(config)
        with self._changed:
            self._config = config

    def update(self, stamp: float, visible: np.ndarray, infrared: np.ndarray) -> Tracked:
        """Find the objects of the next image; takes a few milliseconds of optical flow and never waits.

        :param stamp: of the image [s]
        :param visible: uint8 [H, W, 3] RGB; must not be written to afterwards
        :param infrared: uint8 [H, W]; likewise
        """
        size = (infrared.shape[0], infrared.shape[1])
        with self._changed:
            if self._last is not None and (stamp < self._last[0] or size != self._last[1]):
                self._forget()
            self._last = stamp, size
            prompt, config, result, self._result = self._prompt, self._config, self._result, None
            if self._in_force != self._search:
                self._in_force, self._tracks, self._latest, self._before = self._search, None, None, None
        if not prompt:
            return Tracked(Localization((), size, ()), MaskProvenance(prompt.text))
        image = flow_image(visible, infrared)
        self._take(result, size, config)
        if self._tracks is not None:
            self._tracks.advance(image)
        self._before = stamp, image
        self._ask(_Job(self._in_force, stamp, visible, infrared, image, prompt))
        found = self._alive(stamp, config)
        return Tracked(Localization(found, size, prompt.phrases), self._provenance(prompt, stamp, config, found))

    def close(self) -> None:
        """Stop after the running key frame, and close the localizer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._localizer.close()

    def _forget(self) -> None:
        """Invalidate all results, finished or pending; a new key frame is due at once. Call under the lock."""
        self._search += 1
        self._due, self._slot, self._result, self._error = None, None, None, ""
        self._history.clear()

    def _take(self, result: _Result | None, size: tuple[int, int], config: TrackingConfig) -> None:
        """Apply the result of a key frame to the previous image, where the tracks are.

        Objects alive in that image may be found again, even if they would be too old for the current one.
        """
        if result is None or result.job.search != self._in_force:
            return
        if self._before is not None and result.at < self._before[0]:
            # The result was made before that image entered the history.
            result.tracks.advance(self._before[1])
        old = self._alive(self._before[0], config) if self._before is not None else ()
        merged = self._identities.merge(old, result.tracks.carried())
        self._tracks = Tracks(merged, size, result.tracks.image, self._tracks)
        self._latest = result

    def _ask(self, job: _Job) -> None:
        """Make the current image a key frame if one is due, else keep it for those under way to catch up by."""
        now = self._clock()
        with self._changed:
            if job.search != self._search:
                return
            if self._due is None or now >= self._due:
                self._slot = job
                self._changed.notify_all()
            if self._looking is not None or self._slot is not None:
                self._history.append((job.stamp, job.image))

    def _alive(self, stamp: float, config: TrackingConfig) -> tuple[Instance, ...]:
        """The tracked objects of the current image that were found lately enough."""
        if self._tracks is None:
            return ()
        found = tuple(item for item in self._tracks.carried() if stamp - (item.stamp or 0.0) <= config.mask_lifetime)
        if not found:
            self._tracks = None
        return found

    def _provenance(
        self, prompt: Prompt, stamp: float, config: TrackingConfig, found: tuple[Instance, ...]
    ) -> MaskProvenance:
        made = MaskProvenance(prompt.text, WAITING, None, self._localizer.name, None, self._error)
        if self._latest is None:
            return replace(made, state=FAILED) if self._error else made
        at = self._latest.job.stamp
        if stamp - at <= config.mask_lifetime or found:
            return replace(made, state=LOCATED, stamp=at, seconds=self._latest.seconds)
        return replace(made, state=FAILED if self._error else STALE)

    def _work(self) -> None:
        """The localizer's thread."""
        while True:
            with self._changed:
                self._looking = None
                while self._slot is None and not self._closed:
                    self._changed.wait()
                if self._closed or self._slot is None:
                    return
                job, self._slot = self._slot, None
                self._looking = job
                self._due = self._clock() + 1 / self._config.localize_rate
                while self._history and self._history[0][0] <= job.stamp:
                    self._history.popleft()
            self._look(job)

    def _look(self, job: _Job) -> None:
        begin = time.perf_counter()
        try:
            found = self._localizer.locate(job.visible, job.infrared, job.prompt)
            tracks = Tracks([replace(item, stamp=job.stamp) for item in found.instances], found.size, job.image)
            self._hand_over(job, tracks, time.perf_counter() - begin)
        except Exception as error:  # whatever a localizer does must not end the stream
            line = " ".join(f"{type(error).__name__}: {error}".split())
            with self._changed:
                if job.search == self._search:
                    self._error = line
            self._report(f"the localizer {self._localizer.name} failed on the image of {job.stamp:.3f} s: {line}")

    def _hand_over(self, job: _Job, tracks: Tracks, seconds: float) -> None:
        """Carry the masks to the newest image, and leave them for the caller, who goes on from there."""
        at = job.stamp
        while True:
            with self._changed:
                if job.search != self._search:
                    return
                if not self._history:
                    self._result, self._error = _Result(job, tracks, seconds, at), ""
                    lifetime = self._config.mask_lifetime
                    break
                at, image = self._history.popleft()
            tracks.advance(image)
        if at - job.stamp > lifetime:
            age = f"{at - job.stamp:.2f} s when they were ready"
            remedy = "raise mask_lifetime, or take a faster localizer"
            self._report(f"the age of masks must be at most {lifetime:g} s (mask_lifetime), got {age}; {remedy}")
