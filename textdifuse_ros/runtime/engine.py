"""The fuser in service: opened, reloaded, and replaced where its device fails; free of ROS."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import CheckpointError, ConfigError, DeviceError, TextDifuseError
from textdifuse_ros.runtime.video_state import VideoState

if TYPE_CHECKING:
    from textdifuse_ros.fusion.emphasis import Emphasis
    from textdifuse_ros.fusion.fuser import Fuser
    from textdifuse_ros.fusion.result import FusionResult
    from textdifuse_ros.runtime.latency_budget import Effort

DEVICE = "device"
FAILURES_BEFORE_REOPENING = 3
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
SMALLEST_SIDE = 32
CLOSE_TIMEOUT = 1.0


class Engine:
    """One fuser, for one caller of :meth:`fuse`; everything else from any thread.

    Where the device fails (too little memory, a CUDA error, gone) the image at hand is lost and told of. With
    ``on_device_error`` ``retry`` the fuser is made anew after three failures in a row, and again at growing intervals;
    with ``cpu`` the networks move to the processor at the first, and stay there until :meth:`open` or :meth:`reload`.

    :param complain: takes a reason and a line for the log
    :ivar plain_because: why what was to stand out in the last image does not; empty where it does
    """

    def __init__(self, complain: Callable[[str, str], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._complain = complain
        self._clock = clock
        self._lock = threading.RLock()
        self._config: FuserConfig | None = None
        self._fuser: Fuser | None = None
        self._failures = 0
        self._try_after = 0.0
        self._pause = FIRST_PAUSE
        self.told: dict[str, Any] = {"device": "", "model": "", "weights": ""}
        self.plain_because = ""
        self._video = VideoState()

    @property
    def is_open(self) -> bool:
        """Between :meth:`open` and :meth:`close`, also while the device is gone."""
        return self._config is not None

    def open(self, config: FuserConfig, warm_up: tuple[int, ...], go_on: Callable[[], bool] = lambda: True) -> None:
        """Load the weights and fuse one image.

        :param warm_up: its height and width [pixels]
        :param go_on: asked once the weights are loaded; False leaves the image out
        :raises TextDifuseError: a parameter, the weights or the device are not as they must be
        """
        if len(warm_up) != 2:
            raise ConfigError("warm_up_size", "height and width [pixel]", list(warm_up))
        fuser = self._made(config)
        if go_on():
            fuser.warm_up(*warm_up)
        with self._lock:
            self._config = config
            self._install(fuser)

    def reload(self) -> str:
        """Read the weights again, and take the configured device again; the old ones serve meanwhile.

        :returns: the sha256 of the weights now in force
        :raises TextDifuseError: not open; or the new ones are no good, and the old ones stay
        """
        config = self._config
        if config is None:
            raise ConfigError("the node", "active", "without weights", "configure it if it is not, and activate it")
        fuser = self._made(config)
        with self._lock:
            if self._config is None:  # closed meanwhile
                fuser.close()
                raise ConfigError("the node", "configured", "cleaned up while the weights were read")
            self._install(fuser)
        return fuser.weights

    def close(self) -> None:
        """Free the device; a fusion that hangs is left to itself."""
        lock, self._config = self._lock, None
        idle = lock.acquire(timeout=CLOSE_TIMEOUT)
        self._drop_fuser()
        if idle:
            lock.release()
        else:
            self._lock = threading.RLock()

    def forget(self) -> None:
        """The next image does not hang on those before; what is being fused now still may."""
        self._video = VideoState()  # a new one: the old one may be at work in another thread

    def fuse(
        self,
        visible: np.ndarray | None,
        infrared: np.ndarray | None,
        settings: FusionNodeConfig,
        effort: Effort,
        emphasis: Emphasis | None = None,
        stamp: float | None = None,
    ) -> FusionResult:
        """A pair fused, or one image restored where the other is None.

        :param settings: sampler, seed, ``video`` and ``on_device_error`` in force
        :param effort: steps, and the scale at which to fuse; the image comes out in the size it came in
        :param emphasis: what is to stand out; left out where one image is missing, or the model cannot do it
        :param stamp: of the pair [s], to know which image it follows
        :raises TextDifuseError: the images are no good, or the device failed
        """
        with self._lock:
            config = self._config
            try:
                fuser = self._serving()
                emphasis = self._possible(fuser, emphasis)
                video = self._video
                result = _fused(fuser, visible, infrared, settings, effort, emphasis)
                result = _steadied(video, visible, infrared, settings, result, stamp)
            except Exception as error:
                if config is None or not is_device_failure(error):
                    raise
                if settings.on_device_error != "cpu" or self.told["device"] == "cpu":
                    self._count_failure()
                    raise
                text = " ".join(str(error).split())
            else:
                self._failures, self._pause = 0, FIRST_PAUSE
                return result
            # Out of the except block: the error would keep what the failed fusion held on the device.
            self._complain(DEVICE, f"{self.told['device']} failed ({text}); going on on the cpu until ~/reload_weights")
            self._drop_fuser()
            self._install(self._made(dataclasses.replace(config, device="cpu")))
            assert self._fuser is not None
            result = _fused(self._fuser, visible, infrared, settings, effort, emphasis)
            return _steadied(self._video, visible, infrared, settings, result, stamp)

    def memory(self) -> dict[str, float]:
        """Megabytes in use, as :func:`.memory_in_use` tells them; empty before :meth:`open`."""
        if not self.told["device"]:
            return {}
        from textdifuse_ros.fusion.device import memory_in_use

        return memory_in_use(self.told["device"])

    def _possible(self, fuser: Fuser, emphasis: Emphasis | None) -> Emphasis | None:
        """None where the model has no text re-modulation: masks are of use without it, and so is the image."""
        self.plain_because = ""
        if emphasis is not None:
            try:
                fuser.require_modulation()
            except CheckpointError as error:
                self.plain_because = str(error)
                return None
        return emphasis

    def _made(self, config: FuserConfig) -> Fuser:
        # Not at the top: it imports PyTorch, seconds in which a node with a misspelt parameter could already say so.
        from textdifuse_ros.fusion.fuser import Fuser

        return Fuser.from_config(config)

    def _install(self, fuser: Fuser) -> None:
        self._drop_fuser()
        self._fuser, self._failures = fuser, 0
        self.forget()
        self.told = {"device": fuser.device, "model": fuser.model_name, "weights": fuser.weights}

    def _drop_fuser(self) -> None:
        if self._fuser is not None:
            try:
                self._fuser.close()
            except Exception as error:  # a device that is gone cannot be given back either
                self._complain(DEVICE, f"{self.told['device']} could not be freed ({error})")
        self._fuser = None

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES_BEFORE_REOPENING and self._fuser is not None:
            self._drop_fuser()
            self._wait_longer()

    def _wait_longer(self) -> None:
        self._try_after = self._clock() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)  # until an image comes out again

    def _serving(self) -> Fuser:
        """The fuser, made anew where the device had failed and it is time to try again."""
        if self._fuser is not None:
            return self._fuser
        if self._config is None:
            raise DeviceError("the fuser", "open", "closed")
        name = self.told["device"]
        if self._clock() < self._try_after:
            remedy = "it is taken again at intervals; where it has vanished, restart the node"
            raise DeviceError(f"the device {name}", "working", "one that failed", remedy)
        try:
            fuser = self._made(self._config)
        except Exception:
            self._wait_longer()
            raise
        self._install(fuser)
        self._complain(DEVICE, f"{name} had failed and is taken again")
        return fuser


def is_device_failure(error: Exception) -> bool:
    """Whether the device is to blame: out of memory, absent, or an error of CUDA or its libraries."""
    text = str(error)
    return isinstance(error, DeviceError) or (
        not isinstance(error, TextDifuseError) and any(name in text for name in ("CUDA", "cuDNN", "CUBLAS"))
    )


def _fused(
    fuser: Fuser,
    visible: np.ndarray | None,
    infrared: np.ndarray | None,
    settings: FusionNodeConfig,
    effort: Effort,
    emphasis: Emphasis | None,
) -> FusionResult:
    whole = visible if visible is not None else infrared
    assert whole is not None
    height, width = whole.shape[:2]
    wanted: Emphasis | None = None
    if min(height, width) * effort.scale >= SMALLEST_SIDE and effort.scale < 1:
        size = round(width * effort.scale), round(height * effort.scale)
        visible, infrared = (
            source if source is None else cv2.resize(source, size, interpolation=cv2.INTER_AREA)
            for source in (visible, infrared)
        )
        wanted, emphasis = emphasis, None if emphasis is None else emphasis.resized(*size)
    given: dict[str, Any] = {"steps": effort.steps, "sampler": settings.sampler, "seed": settings.seed}
    if visible is not None and infrared is not None:
        result = fuser.fuse(visible, infrared, emphasis=emphasis, keep_plain=settings.video or wanted is not None, **given)
    else:
        result = fuser.restore(visible=visible, infrared=infrared, **given)
    if result.image.shape[:2] != (height, width):
        size = width, height
        image = cv2.resize(result.image, size, interpolation=cv2.INTER_LINEAR)
        plain = None if result.plain is None else cv2.resize(result.plain, size, interpolation=cv2.INTER_LINEAR)
        mask = _enlarged(result.mask, width, height)
        if wanted is not None and mask is not None and plain is not None:
            # What was changed in the small source reaches beyond the masks of the large one.
            outside = wanted.mask() == 0
            image[outside], mask[outside] = plain[outside], 0
        provenance = {**result.provenance, "scale": str(effort.scale)}
        result = dataclasses.replace(result, image=image, plain=plain, mask=mask, provenance=provenance)
    return result


def _steadied(
    video: VideoState,
    visible: np.ndarray | None,
    infrared: np.ndarray | None,
    settings: FusionNodeConfig,
    result: FusionResult,
    stamp: float | None,
) -> FusionResult:
    """A pair's image as it follows the one before; one that was restored alone follows none, and none follows it."""
    if settings.video and visible is not None and infrared is not None:
        return video(visible, infrared, result, stamp)
    video.reset()
    return result


def _enlarged(mask: np.ndarray | None, width: int, height: int) -> np.ndarray | None:
    """As the image is; rounded up, so that it stays 0 only where no pixel changed."""
    if mask is None:
        return None
    whole = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ceil(whole).astype(np.uint8)
