"""The text of a running node: its localizer is loaded, changed and replaced while the fusion goes on."""

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
from textdifuse_ros.localize.registry import known_words, make_localizer, same_localizer
from textdifuse_ros.runtime.key_frames import FAILED, STALE, WAITING, KeyframeLocalizer, MaskProvenance

T = TypeVar("T")

LOCALIZER, NOT_LOADED = "localizer", "localizer not loaded"
"""Reasons under which failures are logged."""
ALONE = "alone"
"""State of the masks of an image that was restored alone: a localizer needs both images."""
CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects of one image, and what made their masks.

    :ivar localization: the objects
    :ivar provenance: of their masks; its ``text`` is that of ``localization``, even before anything was found
    :ivar strength: the general strength in force for this image
    :ivar tracked: whether the masks may come from an earlier key frame; False where each image is searched
    """

    localization: Localization
    provenance: MaskProvenance
    strength: float
    tracked: bool = True

    def emphasis(self) -> Emphasis:
        """The emphasis of these objects, for a fusion."""
        provenance = self.provenance
        return Emphasis.of(self.localization, self.strength, provenance.text, provenance.localizer)

    def metadata(self) -> dict[str, Any]:
        """Plain values for the image's provenance: of which text and key frame tracked masks are."""
        if not self.tracked:
            return {}
        provenance = self.provenance
        located = provenance.stamp is not None
        return {
            "text": provenance.text,
            "strength": self.strength,
            "localizer": provenance.localizer,
            "masks": provenance.state,
            "masks_text": provenance.text if located else "",
            "masks_stamp": f"{provenance.stamp:.6f}" if located else "",
            "objects": len(self.localization.instances),
        }


class TextTarget:
    """Finds the objects that ``target_text`` names in consecutive images, without ever blocking the fusion.

    :meth:`detect` has one caller; every other method may be called from any thread. Only :meth:`open` waits for
    weights. What changes later is loaded in a thread; until it is, and until the first result, there are no masks. An
    empty text has no localizer. A localizer that fails or cannot be loaded is reported, and the fusion goes on
    without masks.

    :param warn: takes a reason and a line for the throttled log, from any thread
    """

    def __init__(self, warn: Callable[[str, str], Any]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._config: FusionNodeConfig | None = None  # None unless open
        self._prompt = Prompt()
        self._keyframes: KeyframeLocalizer | None = None
        self._serial = 0  # of the current request; a localizer loaded for an older one is discarded
        self._loading = False
        self._error = ""  # why there is no localizer
        self._latest = MaskProvenance()
        self._objects = 0
        self._knows_words = False
        self._threads: list[threading.Thread] = []

    def check(self, config: FusionNodeConfig) -> None:
        """Check that the text can be parsed and, once opened, that the localizer knows its words.

        :param config: the parameters to check
        :raises ConfigError: names ``target_text`` and lists the known words
        """
        prompt = parse_prompt(config.target_text)
        if prompt and self._knows_words:  # earlier it would import PyTorch
            words = known_words(_part(LocalizerConfig, config))
            if words is not None:
                resolve(prompt, words)

    def open(self, config: FusionNodeConfig) -> None:
        """Load the localizer, if there is a text.

        :param config: the parameters in force
        :raises ConfigError: text, localizer or weights are unusable; names the parameter
        """
        self._knows_words = True
        self.check(config)
        keyframes = self._load_localizer(config) if parse_prompt(config.target_text) else None
        with self._lock:
            self._discard()
            self._set_config(config)
            self._keyframes = keyframes

    def apply(self, config: FusionNodeConfig) -> None:
        """Apply changed parameters without waiting.

        :param config: the parameters in force from now on
        """
        with self._lock:
            before = self._config
            if before is None:
                return
            same = same_localizer(_part(LocalizerConfig, config), _part(LocalizerConfig, before))
            changed = config.target_text != before.target_text
            self._set_config(config)
            if not same or not self._prompt:
                self._discard()
            if self._keyframes is not None:
                self._configure(self._keyframes)
            elif self._prompt and not self._loading and (changed or not same):
                self._start_loading(config)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Close the localizer.

        :param timeout: longest wait for a running key frame and for loading weights [s]
        :returns: whether all threads have ended
        """
        with self._lock:
            self._config, self._prompt = None, Prompt()
            self._discard()
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
                self._configure(self._keyframes)

    def detect(self, visible: np.ndarray | None, infrared: np.ndarray | None, stamp: float) -> Detections | None:
        """Find the objects of the next image; None without a text. Never raises.

        :param visible: uint8 or uint16 [H, W, 3] RGB, or None; must not be written to afterwards
        :param infrared: uint8 [H, W], or None; likewise. Without one of them nothing is found
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
                provenance = MaskProvenance(prompt.text, ALONE)
            elif self._keyframes is None:
                provenance = self._without_localizer()
            else:
                try:
                    tracked = self._keyframes.update(stamp, to_uint8(visible), to_uint8(infrared))
                    found, provenance = tracked.localization, tracked.provenance
                except Exception as error:  # any error: the pair must still be published
                    line = _line(error)
                    provenance = MaskProvenance(prompt.text, FAILED, error=line)
                    self._warn(LOCALIZER, f"the masks could not be tracked: {line}")
            self._latest, self._objects = provenance, len(found.instances)
            return Detections(found, provenance, config.target_strength)

    def status(self) -> dict[str, Any]:
        """Plain values for the statistics: the text in force and the state of its masks."""
        with self._lock:
            provenance = self._latest
            strength = None if self._config is None else self._config.target_strength
            return {
                "target": provenance.text,
                "strength": strength,
                "masks": provenance.state,
                "masks_stamp": provenance.stamp,
                "localizer": provenance.localizer,
                "localizer_seconds": None if provenance.seconds is None else round(provenance.seconds, 4),
                "objects": self._objects,
                "error": provenance.error,
            }

    @property
    def problem(self) -> str:
        """Why masks are missing or stale, with a remedy; empty if nothing is wrong."""
        with self._lock:
            provenance = self._latest
        if provenance.error:
            return f"no new masks of {provenance.text!r}: {provenance.error}"
        if provenance.state == STALE:
            remedy = "raise mask_lifetime above the time between two images and the localizer's"
            return f"the masks of {provenance.text!r} are stale; {remedy}"
        return ""

    # ---- under the lock

    def _set_config(self, config: FusionNodeConfig) -> None:
        before = self._prompt
        self._config, self._prompt = config, parse_prompt(config.target_text)
        if before.text != self._prompt.text:
            self._objects = 0
            self._latest = self._without_localizer() if self._prompt else MaskProvenance()

    def _without_localizer(self) -> MaskProvenance:
        state = FAILED if self._error else WAITING
        return MaskProvenance(self._prompt.text, state, error=self._error)

    def _configure(self, keyframes: KeyframeLocalizer) -> None:
        """Pass the current text and tracking parameters on."""
        assert self._config is not None
        keyframes.configure(_part(TrackingConfig, self._config))
        keyframes.set_prompt(self._config.target_text)

    def _discard(self) -> None:
        """Discard the localizer; a thread waits for its running key frame."""
        self._serial += 1
        self._loading, self._error = False, ""
        keyframes, self._keyframes = self._keyframes, None
        if keyframes is not None:
            self._start(keyframes.close, "retire localizer")

    def _start_loading(self, config: FusionNodeConfig) -> None:
        self._serial += 1
        self._loading, self._error = True, ""
        self._latest = self._without_localizer()
        serial = self._serial
        self._start(lambda: self._load(serial, config), "load localizer")

    def _start(self, work: Callable[[], Any], name: str) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        # A daemon: a localizer that hangs must not keep the process from ending.
        self._threads.append(threading.Thread(target=work, name=name, daemon=True))
        self._threads[-1].start()

    # ---- without it

    def _load(self, serial: int, config: FusionNodeConfig) -> None:
        try:
            keyframes = self._load_localizer(config)
        except Exception as error:
            line = _line(error)
            with self._lock:
                wanted = serial == self._serial
                if wanted:
                    self._loading, self._error = False, line
                    self._latest = self._without_localizer()
            if wanted:
                self._warn(NOT_LOADED, line)
            return
        with self._lock:
            if serial == self._serial:
                self._loading, self._keyframes = False, keyframes
                self._configure(keyframes)  # text and rate may have changed meanwhile
                return
        keyframes.close()

    def _load_localizer(self, config: FusionNodeConfig) -> KeyframeLocalizer:
        """Load the localizer.

        :param config: the parameters in force

        :raises ConfigError: names the parameter
        """
        wanted = _part(LocalizerConfig, config)
        try:
            localizer = make_localizer(wanted)
        except TextDifuseError as error:
            name = _parameter_to_blame(error, wanted)
            if not name:
                raise
            raise ConfigError(f"parameter {name}: {error.what}", error.expected, error.actual, error.remedy) from error
        keyframes = KeyframeLocalizer(
            localizer, _part(TrackingConfig, config), report=lambda line: self._warn(LOCALIZER, line)
        )
        try:
            keyframes.set_prompt(config.target_text)
        except ConfigError:
            keyframes.close()
            raise
        return keyframes


def _parameter_to_blame(error: TextDifuseError, config: LocalizerConfig) -> str:
    """The parameter to blame; empty where the error names it."""
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
    """Extract the parameters of another configuration class from the node's."""
    return kind(**{item.name: getattr(config, item.name) for item in dataclasses.fields(kind)})  # type: ignore[arg-type]


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, TextDifuseError) else f"{type(error).__name__}: {text}"
