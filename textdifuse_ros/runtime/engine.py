"""The fuser in service: opened, reloaded, and replaced when its device fails."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.errors import CheckpointError, ConfigError, DeviceError, TextDifuseError

if TYPE_CHECKING:
    from textdifuse_ros.fusion.emphasis import Emphasis
    from textdifuse_ros.fusion.fuser import Fuser
    from textdifuse_ros.fusion.result import FusionResult

DEVICE = "device"
"""Reason under which device failures are logged."""
FAILURES_BEFORE_REOPENING = 3
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Between two attempts to reopen a failed device [s]."""
SMALLEST_SIDE = 32
"""An image is not scaled below this [pixels]."""
CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True)
class FusionRequest:
    """How to fuse one pair.

    :ivar steps: reverse steps
    :ivar sampler: ``ancestral``, ``ddim``, ``dpm_solver`` or ``posterior_mean``
    :ivar seed: of the noise
    :ivar scale: of the image's sides while fusing, in (0, 1]; the result has the input's size
    :ivar keep_plain: return the image without the emphasis as well
    :ivar confidence: return how sure each pixel is; a model that does not know, and an image of one camera, have none
    """

    steps: int
    sampler: str
    seed: int
    scale: float = 1.0
    keep_plain: bool = False
    confidence: bool = False


class FusionBackend(Protocol):
    """Fuses a pair, or restores one image; see :meth:`Engine.fuse`."""

    def fuse(
        self,
        visible: np.ndarray | None,
        infrared: np.ndarray | None,
        request: FusionRequest,
        emphasis: Emphasis | None = None,
    ) -> FusionResult:
        """Fuse a pair.

        :param visible: uint8 or uint16 [H, W, 3] RGB, or None
        :param infrared: uint8 or uint16 [H, W], or None
        :param request: how to fuse
        :param emphasis: the objects to emphasize
        """
        ...


class DirectBackend:
    """A fuser without supervision, for jobs whose errors end them.

    :param fuser: stays the caller's to close
    """

    def __init__(self, fuser: Fuser) -> None:
        self._fuser = fuser

    def fuse(
        self,
        visible: np.ndarray | None,
        infrared: np.ndarray | None,
        request: FusionRequest,
        emphasis: Emphasis | None = None,
    ) -> FusionResult:
        """See :meth:`FusionBackend.fuse`.

        :param visible: uint8 or uint16 [H, W, 3] RGB, or None
        :param infrared: uint8 or uint16 [H, W], or None
        :param request: how to fuse
        :param emphasis: the objects to emphasize
        :raises TextDifuseError: as :meth:`.Fuser.fuse` does
        """
        return fuse_at_scale(self._fuser, visible, infrared, request, emphasis)


class Engine:
    """One supervised fuser. :meth:`fuse` has one caller; every other method may be called from any thread.

    When the device fails (out of memory, a CUDA error, gone) the current image is lost and the failure is logged. With
    ``on_device_error`` = ``retry`` the fuser is reopened after three failures in a row, then at growing intervals. With
    ``cpu`` the networks move to the CPU at the first failure, and stay there until :meth:`open` or :meth:`reload`.

    :param warn: takes a reason and a line for the throttled log
    :param clock: monotonic seconds
    """

    def __init__(self, warn: Callable[[str, str], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._warn = warn
        self._clock = clock
        self._lock = threading.RLock()
        self._config: FuserConfig | None = None
        self._fall_back_to_cpu = False
        self._fuser: Fuser | None = None
        self._failures = 0
        self._try_after = 0.0
        self._pause = FIRST_PAUSE
        self._status: dict[str, Any] = {"device": "", "model": "", "weights": ""}

    @property
    def is_open(self) -> bool:
        """Whether :meth:`open` was called and :meth:`close` was not, even while the device is gone."""
        return self._config is not None

    @property
    def status(self) -> dict[str, Any]:
        """``device``, ``model`` and ``weights`` (sha256) in use, the last ones after :meth:`close`; a copy."""
        return dict(self._status)

    def open(
        self,
        config: FuserConfig,
        warm_up: tuple[int, ...],
        *,
        fall_back_to_cpu: bool = False,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Load the weights and fuse one image.

        :param config: of the fuser
        :param warm_up: height and width of that image [pixels]
        :param fall_back_to_cpu: move to the CPU when the device fails, instead of reopening the device
        :param go_on: called once the weights are loaded; False skips the image
        :raises TextDifuseError: a parameter, the weights or the device are unusable
        """
        if len(warm_up) != 2:
            raise ConfigError("warm_up_size", "height and width [pixel]", list(warm_up))
        fuser = self._load(config)
        if go_on():
            fuser.warm_up(*warm_up)
        with self._lock:
            self._config, self._fall_back_to_cpu = config, fall_back_to_cpu
            self._install(fuser)

    def reload(self) -> str:
        """Read the weights and open the configured device again; the old fuser serves meanwhile.

        :returns: sha256 of the weights now in use
        :raises TextDifuseError: not open; or the new weights are unusable, and the old ones stay
        """
        config = self._config
        if config is None:
            raise ConfigError("the node", "active", "without weights", "configure it if it is not, and activate it")
        fuser = self._load(config)
        with self._lock:
            if self._config is None:  # closed meanwhile
                fuser.close()
                raise ConfigError("the node", "configured", "cleaned up while the weights were read")
            self._install(fuser)
        return fuser.weights

    def close(self) -> None:
        """Free the device; a fusion that hangs is abandoned."""
        lock, self._config = self._lock, None
        idle = lock.acquire(timeout=CLOSE_TIMEOUT)
        self._drop_fuser()
        if idle:
            lock.release()
        else:
            self._lock = threading.RLock()

    def fuse(
        self,
        visible: np.ndarray | None,
        infrared: np.ndarray | None,
        request: FusionRequest,
        emphasis: Emphasis | None = None,
    ) -> FusionResult:
        """Fuse a pair, or restore one image where the other is None.

        :param visible: uint8 or uint16 [H, W, 3] RGB, or None
        :param infrared: uint8 or uint16 [H, W], or None
        :param request: how to fuse
        :param emphasis: the objects to emphasize. A model without text re-modulation fuses plainly, and the provenance
            says why under ``plain_because``
        :raises TextDifuseError: the images are unusable, or the device failed
        """
        with self._lock:
            config = self._config
            try:
                fuser = self._available_fuser()
                result = _fuse_if_possible(fuser, visible, infrared, request, emphasis)
            except Exception as error:
                if config is None or not is_device_failure(error):
                    raise
                if not self._fall_back_to_cpu or self._status["device"] == "cpu":
                    self._count_failure()
                    raise
                text = " ".join(str(error).split())
            else:
                self._failures, self._pause = 0, FIRST_PAUSE
                return result
            # After the except block: the error would keep the failed fusion's device memory alive.
            self._warn(
                DEVICE, f"{self._status['device']} failed ({text}); falling back to the CPU until ~/reload_weights"
            )
            self._drop_fuser()
            self._install(self._load(dataclasses.replace(config, device="cpu")))
            assert self._fuser is not None
            return _fuse_if_possible(self._fuser, visible, infrared, request, emphasis)

    def memory(self) -> dict[str, float]:
        """Megabytes in use, see :func:`.memory_in_use`; empty before :meth:`open`."""
        if not self._status["device"]:
            return {}
        from textdifuse_ros.fusion.device import memory_in_use

        return memory_in_use(self._status["device"])

    def _load(self, config: FuserConfig) -> Fuser:
        # Imported here: PyTorch takes seconds, in which a node with a misspelled parameter can already report it.
        from textdifuse_ros.fusion.fuser import Fuser

        return Fuser.from_config(config)

    def _install(self, fuser: Fuser) -> None:
        self._drop_fuser()
        self._fuser, self._failures = fuser, 0
        self._status = {"device": fuser.device, "model": fuser.model_name, "weights": fuser.weights}

    def _drop_fuser(self) -> None:
        if self._fuser is not None:
            try:
                self._fuser.close()
            except Exception as error:  # a device that is gone cannot be freed either
                self._warn(DEVICE, f"{self._status['device']} could not be freed ({error})")
        self._fuser = None

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES_BEFORE_REOPENING and self._fuser is not None:
            self._drop_fuser()
            self._wait_longer()

    def _wait_longer(self) -> None:
        self._try_after = self._clock() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)  # until a fusion succeeds

    def _available_fuser(self) -> Fuser:
        """The fuser; reopened where the device had failed and the pause is over."""
        if self._fuser is not None:
            return self._fuser
        if self._config is None:
            raise DeviceError("the fuser", "open", "closed")
        name = self._status["device"]
        if self._clock() < self._try_after:
            remedy = "it is reopened at intervals; where it has vanished, restart the node"
            raise DeviceError(f"the device {name}", "working", "one that failed", remedy)
        try:
            fuser = self._load(self._config)
        except Exception:
            self._wait_longer()
            raise
        self._install(fuser)
        self._warn(DEVICE, f"{name} had failed and was reopened")
        return fuser


def is_device_failure(error: Exception) -> bool:
    """Whether the device is to blame: out of memory, absent, or an error of CUDA or its libraries.

    :param error: raised by a fusion
    """
    text = str(error)
    return isinstance(error, DeviceError) or (
        not isinstance(error, TextDifuseError) and any(name in text for name in ("CUDA", "cuDNN", "CUBLAS"))
    )


def _fuse_if_possible(
    fuser: Fuser,
    visible: np.ndarray | None,
    infrared: np.ndarray | None,
    request: FusionRequest,
    emphasis: Emphasis | None,
) -> FusionResult:
    """Fuse; without the emphasis where the model has no text re-modulation, for the image is useful without it."""
    if emphasis is not None:
        try:
            fuser.require_modulation()
        except CheckpointError as error:
            result = fuse_at_scale(fuser, visible, infrared, request, None)
            return dataclasses.replace(result, provenance={**result.provenance, "plain_because": str(error)})
    return fuse_at_scale(fuser, visible, infrared, request, emphasis)


def fuse_at_scale(
    fuser: Fuser,
    visible: np.ndarray | None,
    infrared: np.ndarray | None,
    request: FusionRequest,
    emphasis: Emphasis | None,
) -> FusionResult:
    """Fuse at the requested scale and return an image of the input's size.

    Where the scale is below 1 the provenance has ``scale``.

    :param fuser: open
    :param visible: uint8 or uint16 [H, W, 3] RGB, or None
    :param infrared: uint8 or uint16 [H, W], or None
    :param request: how to fuse
    :param emphasis: the objects to emphasize; ignored where one image is None
    :raises TextDifuseError: as :meth:`.Fuser.fuse` does
    """
    reference = visible if visible is not None else infrared
    assert reference is not None
    height, width = reference.shape[:2]
    full_size_emphasis: Emphasis | None = None
    if min(height, width) * request.scale >= SMALLEST_SIDE and request.scale < 1:
        size = round(width * request.scale), round(height * request.scale)
        visible, infrared = (
            image if image is None else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            for image in (visible, infrared)
        )
        full_size_emphasis, emphasis = emphasis, None if emphasis is None else emphasis.resized(*size)
    given: dict[str, Any] = {"steps": request.steps, "sampler": request.sampler, "seed": request.seed}
    if visible is not None and infrared is not None:
        keep_plain = request.keep_plain or full_size_emphasis is not None
        confidence = request.confidence and fuser.has_confidence
        result = fuser.fuse(visible, infrared, emphasis=emphasis, keep_plain=keep_plain, confidence=confidence, **given)
    else:
        result = fuser.restore(visible=visible, infrared=infrared, **given)
    if result.image.shape[:2] == (height, width):
        return result
    size = width, height
    image = cv2.resize(result.image, size, interpolation=cv2.INTER_LINEAR)
    plain = None if result.plain is None else cv2.resize(result.plain, size, interpolation=cv2.INTER_LINEAR)
    mask = None if result.mask is None else _enlarged(result.mask, width, height)
    spread = None if result.confidence is None else cv2.resize(result.confidence, size, interpolation=cv2.INTER_LINEAR)
    if full_size_emphasis is not None and mask is not None and plain is not None:
        # Changes in the small image reach beyond the masks of the full-size one.
        outside = full_size_emphasis.mask() == 0
        image[outside], mask[outside] = plain[outside], 0
    provenance = {**result.provenance, "scale": str(request.scale)}
    return dataclasses.replace(result, image=image, plain=plain, mask=mask, confidence=spread, provenance=provenance)


def _enlarged(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize like the image, rounding up, so that 0 remains only where no pixel changed."""
    whole = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ceil(whole).astype(np.uint8)
