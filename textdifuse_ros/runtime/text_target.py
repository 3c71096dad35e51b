"""The text of a running node: its localizer is loaded, changed and replaced without interrupting the fusion."""

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
from textdifuse_ros.errors import CheckpointError, ConfigError, DeviceError, TextDifuseError, quote, shorten
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.localize.base import Localization
from textdifuse_ros.localize.prompt import Prompt, parse_prompt, resolve
from textdifuse_ros.localize.registry import known_words, make_localizer, same_localizer
from textdifuse_ros.runtime.key_frames import FAILED, STALE, WAITING, KeyframeLocalizer, MaskProvenance

T = TypeVar("T")

LOCALIZER, NOT_LOADED = "localizer", "localizer not loaded"
"""Reasons of warnings."""
RESTORED_ALONE = "alone"
"""State of the masks of an image that was restored from one sensor: a localizer requires both."""
CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects of one image and the provenance of their masks.

    :ivar localization: the objects
    :ivar provenance: of the masks; its ``text`` always belongs to ``localization``
    :ivar strength: in [-1, 2], multiplies the strength of each phrase
    :ivar tracked: True if the masks may come from an earlier key frame, False if each image is searched
    """

    localization: Localization
    provenance: MaskProvenance
    strength: float
    tracked: bool = True

    def emphasis(self) -> Emphasis:
        """Convert to the emphasis for a fusion."""
        provenance = self.provenance
        return Emphasis.of(self.localization, self.strength, provenance.text, provenance.localizer)

    def metadata(self) -> dict[str, Any]:
        """Return plain values for the provenance of the image: text and key frame of tracked masks."""
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
    """Finds the objects that ``target_text`` names in consecutive images, without blocking the fusion.

    :meth:`detect` is called from one thread, all other methods from any thread. Only :meth:`open` waits for weights;
    a localizer that changes later is loaded in a thread, and there are no masks until its first result. Without a text
    no localizer is loaded. A localizer that fails or cannot be loaded is reported, and the fusion continues without
    masks.

    :param warn: called with a reason and a line for the throttled log, from any thread
    """

    def __init__(self, warn: Callable[[str, str], Any]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._config: FusionNodeConfig | None = None  # None unless open
        self._prompt = Prompt()
        self._keyframes: KeyframeLocalizer | None = None
        self._serial = 0  # number of the current request; a localizer loaded for an older one is discarded
        self._loading = False
        self._error = ""  # why there is no localizer
        self._latest = MaskProvenance()
        self._objects = 0
        self._knows_words = False
        self._threads: list[threading.Thread] = []

    def check(self, config: FusionNodeConfig) -> None:
        """Check that the text can be parsed and, after :meth:`open`, that the localizer knows its words.

        :param config: the parameters to check
        :raises ConfigError: names ``target_text`` and lists the known words
        """
        prompt = parse_prompt(config.target_text)
        if prompt and self._knows_words:  # before open, this would import PyTorch
            words = known_words(_part(LocalizerConfig, config))
            if words is not None:
                resolve(prompt, words)

    def open(self, config: FusionNodeConfig) -> None:
        """Load the localizer, if there is a text.

        :param config: the parameters of the node
        :raises ConfigError: text, localizer or weights are invalid; names the parameter
        """
        self._knows_words = True
        self.check(config)
        keyframes = self._load_localizer(config) if parse_prompt(config.target_text) else None
        with self._lock:
            self._discard()
            self._set_config(config)
            self._keyframes = keyframes

    def apply(self, config: FusionNodeConfig) -> None:
        """Apply changed parameters without blocking.

        :param config: the new parameters of the node
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

        :param timeout: longest wait for the current key frame and for weights being loaded [s]
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
        """Discard all objects; the next image is a key frame."""
        with self._lock:
            if self._keyframes is not None:
                self._keyframes.set_prompt("")
                self._configure(self._keyframes)

    def detect(self, visible: np.ndarray | None, infrared: np.ndarray | None, stamp: float) -> Detections | None:
        """Find the objects of the next image. Never raises.

        :param visible: uint8 or uint16 [H, W, 3] RGB, or None; must not be modified afterwards
        :param infrared: uint8 or uint16 [H, W], or None; likewise. Nothing is found if one of them is None
        :param stamp: of the image [s]
        :returns: None without a text
        """
        with self._lock:
            config, prompt = self._config, self._prompt
            if config is None or not prompt:
                return None
            image = infrared if infrared is not None else visible
            assert image is not None
            objects = Localization((), (image.shape[0], image.shape[1]), prompt.phrases)
            if visible is None or infrared is None:
                provenance = MaskProvenance(prompt.text, RESTORED_ALONE)
            elif self._keyframes is None:
                provenance = self._without_localizer()
            else:
                try:
                    tracked = self._keyframes.update(stamp, to_uint8(visible), to_uint8(infrared))
                    objects, provenance = tracked.localization, tracked.provenance
                except Exception as error:  # whatever fails, the pair must still be published
                    line = _line(error)
                    provenance = MaskProvenance(prompt.text, FAILED, error=line)
                    self._warn(LOCALIZER, f"the masks could not be tracked: {line}")
            self._latest, self._objects = provenance, len(objects.instances)
            return Detections(objects, provenance, config.target_strength)

    def status(self) -> dict[str, Any]:
        """Return plain values for the statistics: the current text and the state of its masks."""
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
            return f"no new masks of {quote(provenance.text)}: {provenance.error}"
        if provenance.state == STALE:
            remedy = "raise mask_lifetime above the time between two images and the localizer's"
            return f"the masks of {quote(provenance.text)} are stale; {remedy}"
        return ""

    # ---- These methods require the lock.

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
        """Set the current text and tracking parameters."""
        assert self._config is not None
        keyframes.configure(_part(TrackingConfig, self._config))
        keyframes.set_prompt(self._config.target_text)

    def _discard(self) -> None:
        """Discard the localizer; a thread waits for its current key frame."""
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
        # A daemon thread: a localizer that hangs must not prevent the process from ending.
        self._threads.append(threading.Thread(target=work, name=name, daemon=True))
        self._threads[-1].start()

    # ---- These methods take the lock themselves.

    def _load(self, serial: int, config: FusionNodeConfig) -> None:
        try:
            keyframes = self._load_localizer(config)
        except Exception as error:
            line = _line(error)
            with self._lock:
                is_current = serial == self._serial
                if is_current:
                    self._loading, self._error = False, line
                    self._latest = self._without_localizer()
            if is_current:
                self._warn(NOT_LOADED, line)
            return
        with self._lock:
            if serial == self._serial:
                self._loading, self._keyframes = False, keyframes
                self._configure(keyframes)  # text and rate may have changed meanwhile
                return
        keyframes.close()

    def _load_localizer(self, config: FusionNodeConfig) -> KeyframeLocalizer:
        """Load the localizer and set its prompt.

        :raises ConfigError: names the parameter
        """
        localizer_config = _part(LocalizerConfig, config)
        try:
            localizer = make_localizer(localizer_config)
        except TextDifuseError as error:
            name = _faulty_parameter(error, localizer_config)
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


def _faulty_parameter(error: TextDifuseError, config: LocalizerConfig) -> str:
    """Return the parameter that caused an error; empty if the error names it."""
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
    text = shorten(" ".join(str(error).split()))
    return text if isinstance(error, TextDifuseError) else f"{type(error).__name__}: {text}"
