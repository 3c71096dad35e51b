"""From a pair of images to a fused one."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from textdifuse_ros import __version__
from textdifuse_ros.checkpoint import SUFFIX, find_checkpoint
from textdifuse_ros.checks import check_infrared, check_same_size, check_visible
from textdifuse_ros.config.base import FuserConfig, parameters, validate
from textdifuse_ros.diffusion import samplers
from textdifuse_ros.diffusion.samplers import NoiseTape, Sampler
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.errors import CheckpointError, DeviceError
from textdifuse_ros.fusion.device import keep_memory, resolve_precision
from textdifuse_ros.fusion.emphasis import Emphasis, check_strengths
from textdifuse_ros.fusion.graphs import Graphs, give_back
from textdifuse_ros.fusion.modulation import AHEAD, Modulated
from textdifuse_ros.fusion.pipeline import CachedFusion, Pipeline, levels, padded, split
from textdifuse_ros.fusion.result import FusionResult
from textdifuse_ros.fusion.weights import load_networks
from textdifuse_ros.image.ranges import unit_to_signed, upload
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.networks.blocks import channels_last
from textdifuse_ros.networks.device import resolve_device
from textdifuse_ros.networks.drive import DriveNetworks
from textdifuse_ros.sensors import INFRARED, VISIBLE

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
        self._graphs = Graphs(self._device) if config.cuda_graphs and self._device.type == "cuda" else None

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
        self._release()

    def warm_up(self, height: int, width: int) -> None:
        """Fuse a grey pair of a size [pixels], so that the first real one is not slowed by first-time set-up.

        A CUDA graph is recorded of 8-bit images without a text; any other one when it is first needed.
        """
        grey = np.full((height, width), 127, np.uint8)
        for _ in range(1 if self._graphs is None else 2):  # the second one is recorded
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
        :param plain: give the image without what stands out as well
        :raises CheckpointError: something is to stand out, and the model has no text re-modulation
        :raises ImageError: types or sizes are not as said
        :raises ConfigError: steps, sampler or seed out of range
        :raises DeviceError: closed, or out of memory; other images can be fused afterwards
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

        Its own features take the place of Phi^f, as in the restoration diffusion (equation 1); a visible image keeps
        its restored colour, an infrared one comes out grey. The provenance says ``sources``: ``visible`` or
        ``infrared``.

        :param visible: uint8 or uint16 [H, W, 3] RGB; or
        :param infrared: uint8 or uint16 [H, W]; one of the two
        :raises ValueError: none of them, or both
        :raises TextDifuseError: as a fusion does
        """
        if (visible is None) == (infrared is None):
            raise ValueError("restore takes the visible or the infrared image, one of them")
        run = self._run(steps, sampler, seed)
        if visible is not None:
            check_visible(visible)
            source, kind = visible, VISIBLE
        else:
            assert infrared is not None
            check_infrared(infrared)
            source, kind = np.repeat(to_uint8(infrared)[:, :, None], 3, 2), INFRARED
        networks = self._open()
        return self._within_memory(lambda: self._restore(networks, source, kind, run), *source.shape[:2])

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

    def _release(self) -> None:
        """Give back what memory of the device nothing needs."""
        if self._graphs is not None:
            self._graphs.clear()
        if self._device.type == "cuda":
            give_back()

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
        self._release()
        remedy = "fuse smaller images, or on another device"
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
        images = upload(visible, self._device), upload(to_uint8(infrared), self._device)
        pipeline = Pipeline(networks, self.schedule, run.steps, run.rule)
        graphs = self._graphs if run.steps <= AHEAD else None
        found = None if graphs is None else self._recorded(graphs, pipeline, images, run, emphasis, clock)
        if found is None:
            found = _computed(pipeline, images, run, emphasis, clock, plain=plain, whole=graphs is not None)
        fused, without = found
        image = fused.cpu().numpy()
        bare = without.cpu().numpy() if plain and without is not None else None
        clock.lap("finish")
        mask = None if emphasis is None else emphasis.mask()
        return FusionResult(image, self._provenance(run, emphasis), clock.laps(), mask, bare)

    def _recorded(
        self,
        graphs: Graphs,
        pipeline: Pipeline,
        images: tuple[Tensor, Tensor],
        run: _Run,
        emphasis: Emphasis | None,
        clock: _Stopwatch,
    ) -> tuple[Tensor, Tensor | None] | None:
        """What :func:`_computed` gives, by way of graphs; None where there is none yet."""
        clock.lap("prepare")
        key = (bool(emphasis), run.key, *((item.shape, item.dtype) for item in images))
        record = pipeline.kept if emphasis else pipeline.image
        found = graphs(key, lambda: functools.partial(record, noise=NoiseTape(run.generator())), images)
        if found is None:
            return None
        if not isinstance(found, CachedFusion):
            clock.lap("graph")
            return found, None
        assert emphasis and pipeline.networks.modulation is not None
        modulated = Modulated(pipeline.networks.modulation, found.sources, found.infrared, emphasis, whole=True)
        clock.lap("graph")
        fused = None
        if not modulated.faint:
            amounts = modulated.amounts(found.estimates[0].x0)
            fused = graphs.second(
                key,
                lambda kept: functools.partial(pipeline.emphasized_everywhere, kept),
                (amounts, modulated.soft),
            )
        if fused is None:
            fused = pipeline.emphasized(found, modulated)
        clock.lap("objects")
        return fused, found.image

    def _restore(self, networks: DriveNetworks, source: np.ndarray, kind: str, run: _Run) -> FusionResult:
        clock = _Stopwatch(self._device)
        grey = kind == INFRARED
        pipeline = Pipeline(networks, self.schedule, run.steps, run.rule)
        noise = run.generator()
        seen = split(padded(upload(source, self._device)))
        clock.lap("prepare")
        denoiser = pipeline.alone(seen, kind)
        clock.lap("encode")
        restored = pipeline.last(denoiser, seen.luma, noise)
        clock.lap("steps")
        color = torch.zeros_like(seen.chroma) if grey else pipeline.color(seen, noise)
        clock.lap("chroma")
        image = levels(restored, color, *source.shape[:2]).cpu().numpy()
        clock.lap("finish")
        provenance = {**self._provenance(run), "sources": "infrared" if grey else "visible"}
        return FusionResult(image, provenance, clock.laps())

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


def _computed(
    pipeline: Pipeline,
    images: tuple[Tensor, Tensor],
    run: _Run,
    emphasis: Emphasis | None,
    clock: _Stopwatch,
    *,
    plain: bool,
    whole: bool,
) -> tuple[Tensor, Tensor | None]:
    """The fused image, uint8 [H, W, 3], and, where that is asked for, the one without what stands out.

    :param whole: as of :class:`.Modulated`
    """
    noise = run.generator()
    seen, warm = split(padded(images[0])), padded(images[1])
    clock.lap("prepare")
    modulated = None
    if emphasis:
        assert pipeline.networks.modulation is not None
        denoiser, sources = pipeline.fused_of(seen, warm)
        modulated = Modulated(pipeline.networks.modulation, sources, unit_to_signed(warm), emphasis, whole=whole)
    else:
        denoiser = pipeline.fused(seen, warm)
    clock.lap("encode")
    luma = pipeline.last(denoiser, seen.luma, noise, modulated)
    clock.lap("steps")
    color = pipeline.color(seen, noise)
    clock.lap("chroma")
    size = images[1].shape[:2]
    fused = levels(luma, color, *size)
    without = levels(modulated.plain.clamp(-1, 1), color, *size) if plain and modulated is not None else None
    return fused, without


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
        self.key = steps, sampler, seed

    def generator(self) -> torch.Generator:
        """Of the noise; on the processor, so that it is the same whatever the device."""
        return torch.Generator().manual_seed(self.seed)


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
