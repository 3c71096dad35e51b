"""The text in service: its localizer loaded, asked, changed and replaced beside the fusion; free of ROS."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from textdifuse_ros.config.localizer import LocalizerConfig, TrackingConfig
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import CheckpointError, ConfigError, DeviceError, TextDifuseError
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.localize.base import Localization
from textdifuse_ros.localize.prompt import Prompt, parse_prompt, resolve
from textdifuse_ros.localize.registry import alike, known_words, make_localizer
from textdifuse_ros.runtime.key_frames import FAILED, STALE, WAITING, KeyframeLocalizer, MaskProvenance

T = TypeVar("T")

LOCALIZER, NOT_LOADED = "localizer", "localizer not loaded"
"""The reasons under which its failures are told."""
ALONE = "alone"
"""State of the masks of an image that was restored alone: a localizer looks at both."""
CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects of one image, and what made their masks.

    :ivar provenance: its ``text`` is that of ``localization``, also before anything was found
    :ivar strength: the general strength in force for this image
    :ivar tracked: whether the masks may come from an earlier key frame; False where each image is searched
    """

    localization: Localization
    provenance: MaskProvenance
    strength: float
    tracked: bool = True

    def emphasis(self) -> Emphasis:
        """As a fusion takes it."""
        made = self.provenance
        return Emphasis.of(self.localization, self.strength, made.text, made.localizer)

    def metadata(self) -> dict[str, Any]:
        """Plain values for the image's provenance: of which text and key frame tracked masks are."""
        if not self.tracked:
            return {}
        made = self.provenance
        located = made.stamp is not None
        return {
            "text": made.text,
            "strength": self.strength,
            "localizer": made.localizer,
            "masks": made.state,
            "masks_text": made.text if located else "",
            "masks_stamp": f"{made.stamp:.6f}" if located else "",
            "objects": len(self.localization.instances),
        }


class TextTarget:
    """Finds what ``target_text`` names in image after image, and never holds the fusion up.

    One caller of :meth:`detect`; everything else from any other thread. Only :meth:`open` waits for weights: what a
    running node is told is loaded in a thread, and until then, as until the first result, there are no masks. An empty
    text has no localizer. One that fails, or cannot be loaded, is told of, and the fusion goes on without masks.

    :param complain: takes a reason and a line for the log, from any thread
    """

    def __init__(self, complain: Callable[[str, str], Any]) -> None:
        self._complain = complain
        self._lock = threading.Lock()
        self._config: FusionNodeConfig | None = None  # while in service
        self._prompt = Prompt()
        self._keyframes: KeyframeLocalizer | None = None
        self._serial = 0  # of what is wanted; a localizer that was loaded for an older one is of no use
        self._loading = False
        self._error = ""  # why there is no localizer
        self._latest = MaskProvenance()
        self._objects = 0
        self._knows_words = False
        self._threads: list[threading.Thread] = []

    def check(self, config: FusionNodeConfig) -> None:
        """Refuse a text that is none; once a configuration was opened also words that its localizer does not know.

        :raises ConfigError: names ``target_text``, and lists what is known
        """
        prompt = parse_prompt(config.target_text)
        if prompt and self._knows_words:  # before, PyTorch would have to be imported for it
            words = known_words(_part(LocalizerConfig, config))
            if words is not None:
                resolve(prompt, words)

    def open(self, config: FusionNodeConfig) -> None:
        """Begin: load the localizer, if there is a text.

        :raises ConfigError: text or localizer are wrong, or its weights; the parameter is named
        """
        self._knows_words = True
        self.check(config)
        keyframes = self._made(config) if parse_prompt(config.target_text) else None
        with self._lock:
            self._retire()
            self._take(config)
            self._keyframes = keyframes

    def apply(self, config: FusionNodeConfig) -> None:
        """Take changed parameters over; waits for nothing."""
        with self._lock:
            before = self._config
            if before is None:
                return
            same = alike(_part(LocalizerConfig, config), _part(LocalizerConfig, before))
            changed = config.target_text != before.target_text
            self._take(config)
            if not same or not self._prompt:
                self._retire()
            if self._keyframes is not None:
                self._hand_on(self._keyframes)
            elif self._prompt and not self._loading and (changed or not same):
                self._begin_loading(config)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Give the localizer back.

        :param timeout: longest wait for the key frame that is being looked at, and for weights [s]
        :returns: whether all threads have ended
        """
        with self._lock:
            self._config, self._prompt = None, Prompt()
            self._retire()
            self._latest, self._objects = MaskProvenance(), 0
            threads = list(self._threads)
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def reset(self) -> None:
        """Forget all objects; the next image is a key frame."""
        with self._lock:
            if self._keyframes is not None:
                self._keyframes.set_prompt("")
                self._hand_on(self._keyframes)

    def detect(self, visible: np.ndarray | None, infrared: np.ndarray | None, stamp: float) -> Detections | None:
        """The objects of the next image; None without a text. Does not raise.

        :param visible: uint8 or uint16 [H, W, 3] RGB; must not be written to afterwards
        :param infrared: uint8 [H, W]; likewise. Where one of them is missing, nothing is found
        :param stamp: of the image [s]
        """
        with self._lock:
            config, prompt = self._config, self._prompt
            if config is None or not prompt:
                return None
            whole = infrared if infrared is not None else visible
            assert whole is not None
            found = Localization((), (whole.shape[0], whole.shape[1]), prompt.phrases)
            if visible is None or infrared is None:
                made = MaskProvenance(prompt.text, ALONE)
            elif self._keyframes is None:
                made = self._without_localizer()
            else:
                try:
                    tracked = self._keyframes.update(stamp, to_uint8(visible), to_uint8(infrared))
                    found, made = tracked.localization, tracked.provenance
                except Exception as error:  # whatever it is, the pair must come out
                    line = _line(error)
                    made = MaskProvenance(prompt.text, FAILED, error=line)
                    self._complain(LOCALIZER, f"the masks could not be carried on: {line}")
            self._latest, self._objects = made, len(found.instances)
            return Detections(found, made, config.target_strength)

    def status(self) -> dict[str, Any]:
        """Plain values for the statistics: the text in force, and how its masks fare."""
        with self._lock:
            made = self._latest
            strength = None if self._config is None else self._config.target_strength
            return {
                "target": made.text,
                "strength": strength,
                "masks": made.state,
                "masks_stamp": made.stamp,
                "localizer": made.localizer,
                "localizer_seconds": None if made.seconds is None else round(made.seconds, 4),
                "objects": self._objects,
                "error": made.error,
            }

    @property
    def problem(self) -> str:
        """Why there are no masks, or old ones, with a remedy; empty where all is well."""
        with self._lock:
            made = self._latest
        if made.error:
            return f"no new masks of {made.text!r}: {made.error}"
        if made.state == STALE:
            remedy = "raise mask_lifetime above the time between two images and the localizer's"
            return f"the masks of {made.text!r} are stale; {remedy}"
        return ""

    # ---- under the lock

    def _take(self, config: FusionNodeConfig) -> None:
        before = self._prompt
        self._config, self._prompt = config, parse_prompt(config.target_text)
        if before.text != self._prompt.text:
            self._objects = 0
            self._latest = self._without_localizer() if self._prompt else MaskProvenance()

    def _without_localizer(self) -> MaskProvenance:
        state = FAILED if self._error else WAITING
        return MaskProvenance(self._prompt.text, state, error=self._error)

    def _hand_on(self, keyframes: KeyframeLocalizer) -> None:
        """Have it do what is wanted now."""
        assert self._config is not None
        keyframes.configure(_part(TrackingConfig, self._config))
        keyframes.set_prompt(self._config.target_text)

    def _retire(self) -> None:
        """Let go of the localizer; a thread waits for the key frame that it is looking at."""
        self._serial += 1
        self._loading, self._error = False, ""
        keyframes, self._keyframes = self._keyframes, None
        if keyframes is not None:
            self._start(keyframes.close, "retire localizer")

    def _begin_loading(self, config: FusionNodeConfig) -> None:
        self._serial += 1
        self._loading, self._error = True, ""
        self._latest = self._without_localizer()
        serial = self._serial
        self._start(lambda: self._load(serial, config), "load localizer")

    def _start(self, work: Callable[[], Any], name: str) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        # A daemon, lest a localizer that hangs keep the process from ending.
        self._threads.append(threading.Thread(target=work, name=name, daemon=True))
        self._threads[-1].start()

    # ---- without it

    def _load(self, serial: int, config: FusionNodeConfig) -> None:
        try:
            keyframes = self._made(config)
        except Exception as error:
            line = _line(error)
            with self._lock:
                wanted = serial == self._serial
                if wanted:
                    self._loading, self._error = False, line
                    self._latest = self._without_localizer()
            if wanted:
                self._complain(NOT_LOADED, line)
            return
        with self._lock:
            if serial == self._serial:
                self._loading, self._keyframes = False, keyframes
                self._hand_on(keyframes)  # text and rate may have changed meanwhile
                return
        keyframes.close()

    def _made(self, config: FusionNodeConfig) -> KeyframeLocalizer:
        """The localizer at work.

        :raises ConfigError: names the parameter
        """
        wanted = _part(LocalizerConfig, config)
        try:
            localizer = make_localizer(wanted)
        except TextDifuseError as error:
            name = _blamed(error, wanted)
            if not name:
                raise
            raise ConfigError(f"parameter {name}: {error.what}", error.expected, error.actual, error.remedy) from error
        keyframes = KeyframeLocalizer(
            localizer, _part(TrackingConfig, config), report=lambda line: self._complain(LOCALIZER, line)
        )
        try:
            keyframes.set_prompt(config.target_text)
        except ConfigError:
            keyframes.close()
            raise
        return keyframes


def _blamed(error: TextDifuseError, config: LocalizerConfig) -> str:
    """The parameter to look at; empty where the error names it."""
    if isinstance(error, ConfigError):
        return ""
    if isinstance(error, DeviceError):
        return "localizer_device"
    if config.localizer == "fixed":
        return "regions"
    if config.localizer == "builtin" and isinstance(error, CheckpointError):
        return "localizer_model"
    return "detector or segmenter" if config.localizer == "detect_segment" else "segmenter"


def _part(kind: type[T], config: FusionNodeConfig) -> T:
    """The part of the node's configuration that another one is."""
    return kind(**{item.name: getattr(config, item.name) for item in dataclasses.fields(kind)})  # type: ignore[arg-type]


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, TextDifuseError) else f"{type(error).__name__}: {text}"
