"""From a pair of pictures to a fused one."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros import __version__
from textdifuse_ros.checkpoint import SUFFIX, find_checkpoint
from textdifuse_ros.checks import check_infrared, check_same_size, check_visible
from textdifuse_ros.config import FuserConfig, parameters, validate
from textdifuse_ros.diffusion import samplers
from textdifuse_ros.diffusion.process import reverse, start_noise
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.samplers import Sampler
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.errors import CheckpointError, DeviceError
from textdifuse_ros.fusion.denoise import FeatureDenoiser
from textdifuse_ros.fusion.device import keep_memory, resolve_precision
from textdifuse_ros.fusion.emphasis import Emphasis, Modulated, check_strengths, modulate
from textdifuse_ros.fusion.result import FusionResult
from textdifuse_ros.fusion.weights import load_networks
from textdifuse_ros.image.color import rgb_to_ycbcr, ycbcr_to_rgb
from textdifuse_ros.image.ranges import signed_to_unit, to_bytes, to_unit, unit_to_signed
from textdifuse_ros.image.sizing import crop_to, pad_to_multiple
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.networks.blocks import channels_last
from textdifuse_ros.networks.device import resolve_device
from textdifuse_ros.networks.drive import INFRARED, MULTIPLE, VISIBLE, DriveNetworks
from textdifuse_ros.networks.light import color_of

_CHECKS = {item.name: item.check for item in parameters(FuserConfig)}


class Fuser:
    """Fuses pairs with one set of weights on one device.

    The same pair, seed, steps, sampler and weights give the same bytes on the same machine, whatever was fused before.
    One caller at a time.

    :param networks: of the ``drive`` family, in float32; taken over
    :param config: checked
    :param weights: sha256 of the weights, for the provenance
    :ivar allocator: allocator settings in force, for reports
    """

    def __init__(self, networks: DriveNetworks, config: FuserConfig, weights: str = "") -> None:
        validate(config)
        self.config = config
        self.weights = weights
        self.allocator = ""
        self._device = resolve_device(config.device)
        self.dtype = resolve_precision(config.precision, self._device)
        if self._device.type == "cuda":
            # float32 is to mean float32: convolutions would otherwise round their inputs to ten bits (TF32).
            torch.backends.cudnn.allow_tf32 = False
        if config.threads:
            torch.set_num_threads(config.threads)
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        networks = networks.eval().requires_grad_(False).to(self._device, self.dtype)
        if networks.chroma.light is not None:
            networks.chroma.light.float()
        self._networks: DriveNetworks | None = channels_last(networks)

    @classmethod
    def from_config(cls, config: FuserConfig) -> Fuser:
        """Find and load the weights; on a CPU also tell the allocator to keep its memory (the whole process's).

        :raises CheckpointError: not found, damaged, of another kind
        :raises ConfigError: a parameter out of range
        :raises DeviceError: the device is absent
        """
        validate(config)
        device = resolve_device(config.device)
        allocator = keep_memory() if device.type == "cpu" else ""
        networks, checkpoint = load_networks(find_checkpoint(config.model))
        fuser = cls(networks, config, checkpoint.sha256)
        fuser.allocator = allocator
        return fuser

    @property
    def model_name(self) -> str:
        """The model's name; of a path the stem, for where a file lies is nobody's business downstream."""
        model = self.config.model
        return Path(model).stem if model.endswith(SUFFIX) else model

    @property
    def device(self) -> str:
        """The device in force, ``cpu`` or ``cuda:0``."""
        return str(self._device)

    def close(self) -> None:
        """Give the device's memory back. The object is of no use afterwards."""
        self._networks = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def warm_up(self, height: int, width: int) -> None:
        """Fuse a grey pair of a size [pixels], so that the first real one is not slowed by first-time set-up."""
        grey = np.full((height, width), 127, np.uint8)
        self(np.repeat(grey[:, :, None], 3, 2), grey)

    def __call__(
        self,
        visible: np.ndarray,
        infrared: np.ndarray,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int | None = None,
        emphasis: Emphasis | None = None,
        plain: bool = False,
    ) -> FusionResult:
        """Fuse one aligned pair.

        :param visible: uint8 or uint16 [H, W, 3] RGB
        :param infrared: uint8 or uint16 [H, W]; 16 bits are stretched to 8 by percentiles (:mod:`image.thermal`)
        :param steps: reverse steps, and so on: the configuration's where not given
        :param emphasis: what is to stand out; where its strength is 0, the bytes are those without it
        :param plain: give the picture without what stands out as well
        :raises CheckpointError: something is to stand out, and the model has no text re-modulation
        :raises ImageError: types or sizes are not as said
        :raises ConfigError: steps, sampler or seed out of range
        :raises DeviceError: closed, or out of memory; other pictures can be fused afterwards
        """
        check_visible(visible)
        check_infrared(infrared)
        check_same_size(visible, infrared)
        if emphasis is not None:
            check_strengths(emphasis.strengths, infrared)
        if emphasis:
            self.require_modulation()
        run = self._run(steps, sampler, seed)
        networks = self._open()
        work = functools.partial(self._fuse, networks, visible, infrared, run, emphasis, plain)
        return self._within_memory(work, *infrared.shape)

    def restore(
        self,
        *,
        visible: np.ndarray | None = None,
        infrared: np.ndarray | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int | None = None,
    ) -> FusionResult:
        """Restore one source alone, for where the other camera is missing.

        Its own features take the place of Phi^f, as in the restoration diffusion (equation 1); a visible picture keeps
        its restored colour, an infrared one comes out grey. The provenance says ``sources``: ``visible`` or
        ``infrared``.

        :param visible: uint8 or uint16 [H, W, 3] RGB; or
        :param infrared: uint8 or uint16 [H, W]; one of the two
        :raises ValueError: none of them, or both
        :raises TextDifuseError: as a fusion does
        """
        if (visible is None) == (infrared is None):
            raise ValueError("restore takes the visible or the infrared picture, one of them")
        run = self._run(steps, sampler, seed)
        if visible is not None:
            check_visible(visible)
            picture, kind = visible, VISIBLE
        else:
            assert infrared is not None
            check_infrared(infrared)
            picture, kind = np.repeat(to_uint8(infrared)[:, :, None], 3, 2), INFRARED
        networks = self._open()
        return self._within_memory(lambda: self._restore(networks, picture, kind, run), *picture.shape[:2])

    @property
    def has_modulation(self) -> bool:
        """Whether the model can make something stand out.

        :raises DeviceError: closed
        """
        return self._open().modulation is not None

    def require_modulation(self) -> None:
        """Refuse a model that can only fuse without a text.

        :raises CheckpointError: it has no text re-modulation
        """
        if not self.has_modulation:
            remedy = "leave the text empty, or add one with textdifuse train modulation"
            raise CheckpointError(
                f"the model {self.model_name}", "one with a text re-modulation", "one without", remedy
            )

    def _open(self) -> DriveNetworks:
        if self._networks is None:
            raise DeviceError("the fuser", "open", "closed")
        return self._networks

    def _run(self, steps: int | None, sampler: str | None, seed: int | None) -> _Run:
        """The settings of a call: the configuration's where not given."""
        return _Run(
            self.config.steps if steps is None else steps,
            self.config.sampler if sampler is None else sampler,
            self.config.seed if seed is None else seed,
        )

    def _within_memory(self, work: Callable[[], FusionResult], height: int, width: int) -> FusionResult:
        """Do the work; too little memory becomes a DeviceError, and what was reserved is given back."""
        with torch.inference_mode():
            try:
                return work()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
        # Only here, where the error no longer keeps the tensors of its frames alive.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        remedy = "fuse smaller pictures, or on another device"
        raise DeviceError(f"the memory of {self.device}", "enough", f"too little for {width} x {height} pixels", remedy)

    def _fuse(
        self,
        networks: DriveNetworks,
        visible: np.ndarray,
        infrared: np.ndarray,
        run: _Run,
        emphasis: Emphasis | None,
        plain: bool,
    ) -> FusionResult:
        clock = _Stopwatch(self._device)
        height, width = infrared.shape
        generator = torch.Generator().manual_seed(run.seed)
        # Chroma is restored at half the size, so the picture is padded to twice what its network takes.
        rgb = pad_to_multiple(to_unit(visible, self._device), 2 * MULTIPLE)
        luma, chroma = rgb_to_ycbcr(rgb)
        warm = pad_to_multiple(to_unit(to_uint8(infrared), self._device), 2 * MULTIPLE)
        clock.lap("prepare")

        balanced = self._balanced(networks, rgb, luma, chroma)
        sources = unit_to_signed(balanced), unit_to_signed(warm)
        modulated = None
        if emphasis:
            features, modulated = modulate(networks, *sources, emphasis)
        else:
            features = networks.luma.fuse_features(*sources)
        clock.lap("encode")
        denoiser = FeatureDenoiser(networks.luma.decoder, features, self.schedule)
        fused = signed_to_unit(self._last(denoiser, luma.shape, run, generator, modulated))
        clock.lap("steps")

        color = self._color(networks, luma, chroma, run, generator)
        clock.lap("chroma")

        def finish(luma: Tensor) -> np.ndarray:
            return to_bytes(crop_to(ycbcr_to_rgb(luma, color), height, width))

        picture = finish(fused)
        without = finish(signed_to_unit(modulated.plain.clamp(-1, 1))) if plain and modulated is not None else None
        clock.lap("finish")
        mask = None if emphasis is None else emphasis.mask()
        return FusionResult(picture, self._provenance(run, emphasis), clock.laps(), mask, without)

    def _balanced(self, networks: DriveNetworks, rgb: Tensor, luma: Tensor, chroma: Tensor) -> Tensor:
        """The luma that a picture has without its colour cast, float32 [N, 1, H, W] in [0, 1]; brightness stays."""
        if networks.chroma.light is None:
            return luma
        gains = networks.chroma.light(_half(luma, chroma))
        return rgb_to_ycbcr((rgb * color_of(gains)).clamp(0, 1))[0]

    def _color(
        self, networks: DriveNetworks, luma: Tensor, chroma: Tensor, run: _Run, generator: torch.Generator
    ) -> Tensor:
        """Restored chroma, float32 [N, 2, H, W] in [-0.5, 0.5], of a visible picture's luma and chroma."""
        seen = networks.chroma.relit(_half(luma, chroma))
        features = networks.chroma.encoder(seen)
        denoiser = FeatureDenoiser(networks.chroma.decoder, features, self.schedule, base=seen[:, 1:])
        small = self._last(denoiser, seen[:, 1:].shape, run, generator) / 2
        return F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)

    def _restore(self, networks: DriveNetworks, picture: np.ndarray, kind: int, run: _Run) -> FusionResult:
        clock = _Stopwatch(self._device)
        height, width = picture.shape[:2]
        generator = torch.Generator().manual_seed(run.seed)
        grey = kind == INFRARED
        rgb = pad_to_multiple(to_unit(picture, self._device), 2 * MULTIPLE)
        luma, chroma = rgb_to_ycbcr(rgb)
        clock.lap("prepare")
        source = torch.tensor([kind], device=self._device)
        balanced = luma if grey else self._balanced(networks, rgb, luma, chroma)
        features = networks.luma.encoder(unit_to_signed(balanced), source)
        clock.lap("encode")
        denoiser = FeatureDenoiser(networks.luma.decoder, features, self.schedule)
        restored = signed_to_unit(self._last(denoiser, luma.shape, run, generator))
        clock.lap("steps")
        color = torch.zeros_like(chroma) if grey else self._color(networks, luma, chroma, run, generator)
        clock.lap("chroma")
        image = to_bytes(crop_to(ycbcr_to_rgb(restored, color), height, width))
        clock.lap("finish")
        provenance = {**self._provenance(run), "sources": "infrared" if grey else "visible"}
        return FusionResult(image, provenance, clock.laps())

    def _last(
        self,
        denoiser: FeatureDenoiser,
        shape: torch.Size,
        run: _Run,
        generator: torch.Generator,
        modulated: Modulated | None = None,
    ) -> Tensor:
        """The last picture of the reverse process, float32 [N, C, H, W] in [-1, 1]."""
        schedule = respace(self.schedule, space_timesteps(len(self.schedule), run.steps))
        process = reverse if modulated is None else modulated.reverse
        *_, last = process(denoiser, start_noise(shape, generator, self._device), schedule, run.rule, generator)
        return last.z.clamp(-1, 1)

    def _provenance(self, run: _Run, emphasis: Emphasis | None = None) -> dict[str, str | int | float]:
        asked = {} if emphasis is None else emphasis.provenance
        return {
            **asked,
            "model": self.model_name,
            "weights": self.weights,
            "steps": run.steps,
            "sampler": run.sampler,
            "seed": run.seed,
            "device": self.device,
            "precision": str(self.dtype).removeprefix("torch."),
            "version": __version__,
        }


def _half(luma: Tensor, chroma: Tensor) -> Tensor:
    """What the chroma networks see: luma and twice the chroma at half the size, [N, 3, H / 2, W / 2] in [-1, 1]."""
    return F.avg_pool2d(torch.cat((unit_to_signed(luma), 2 * chroma), 1), 2)


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU's allocator has no exception type of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class _Run:
    """The settings of one call, checked."""

    def __init__(self, steps: int, sampler: str, seed: int) -> None:
        _CHECKS["steps"](steps)
        _CHECKS["sampler"](sampler)
        _CHECKS["seed"](seed)
        self.steps, self.sampler, self.seed = steps, sampler, seed
        self.rule: Sampler = samplers.by_name(sampler)


class _Stopwatch:
    """Seconds between laps; on CUDA the work is waited for, or the time would be that of asking for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = self._begin = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._laps[name] = now - self._last
        self._last = now

    def laps(self) -> dict[str, float]:
        return {**self._laps, "total": self._last - self._begin}
