"""Fuse a pair of images with one set of weights: :class:`Fuser`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from textdifuse_ros import __version__
from textdifuse_ros.checkpoint import SUFFIX, find_checkpoint
from textdifuse_ros.checks import check_infrared, check_same_size, check_visible
from textdifuse_ros.config.base import FuserConfig, validate
from textdifuse_ros.diffusion.samplers import NoiseTape
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.errors import CheckpointError, DeviceError
from textdifuse_ros.fusion.call import CallSettings, Stopwatch
from textdifuse_ros.fusion.device import keep_memory, resolve_precision
from textdifuse_ros.fusion.emphasis import Emphasis, check_strengths
from textdifuse_ros.fusion.graphs import MAX_STEPS, Graphs, Work, empty_cache
from textdifuse_ros.fusion.modulation import FullFrameModulation
from textdifuse_ros.fusion.pipeline import Fusion, Pipeline
from textdifuse_ros.fusion.result import FusionResult
from textdifuse_ros.fusion.weights import FusionNetworks, load_family
from textdifuse_ros.image.grey import is_grey
from textdifuse_ros.image.ranges import upload
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.networks.blocks import channels_last
from textdifuse_ros.networks.device import resolve_device
from textdifuse_ros.networks.drive import DriveNetworks
from textdifuse_ros.networks.reference.networks import ReferenceNetworks
from textdifuse_ros.sensors import INFRARED, VISIBLE

if TYPE_CHECKING:
    from textdifuse_ros.fusion.reference import ReferenceFusion, ReferencePipeline


class Fuser:
    """Fuses pairs with one set of weights on one device.

    The same pair, seed, steps, sampler and weights give the same bytes on the same machine, whatever was fused before.
    One caller at a time.

    :param networks: of the ``drive`` or the ``reference`` family, in float32; owned by the fuser from now on
    :param config: the settings; validated here
    :param weights: sha256 of the weights, for the provenance
    :ivar allocator: allocator settings in force, for reports
    :ivar graphs: the cache of CUDA graphs; None where none are captured
    """

    def __init__(self, networks: FusionNetworks, config: FuserConfig, weights: str = "") -> None:
        validate(config)
        self.config = config
        self.weights = weights
        self.allocator = ""
        self._device = resolve_device(config.device)
        self.dtype = resolve_precision(config.precision, self._device)
        if self._device.type == "cuda":
            # TF32 would round the inputs of float32 convolutions to ten bits.
            torch.backends.cudnn.allow_tf32 = False
        if config.threads:
            torch.set_num_threads(config.threads)
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        networks = networks.eval().requires_grad_(False).to(self._device, self.dtype)
        is_drive = isinstance(networks, DriveNetworks)
        if isinstance(networks, DriveNetworks) and networks.chroma.light is not None:
            networks.chroma.light.float()
        self._networks: FusionNetworks | None = channels_last(networks)
        self.graphs = Graphs(self._device) if is_drive and config.cuda_graphs and self._device.type == "cuda" else None

    @classmethod
    def from_config(cls, config: FuserConfig) -> Fuser:
        """Find and load the weights; on a CPU also make the process's allocator keep freed memory.

        :param config: names the model, the device and the precision

        :raises CheckpointError: not found, damaged, of another kind
        :raises ConfigError: a parameter out of range
        :raises DeviceError: the device is absent
        """
        validate(config)
        device = resolve_device(config.device)
        allocator = keep_memory() if device.type == "cpu" else ""
        networks, checkpoint = load_family(find_checkpoint(config.model))
        fuser = cls(networks, config, checkpoint.sha256)
        fuser.allocator = allocator
        return fuser

    @property
    def model_name(self) -> str:
        """The model's name; for a file its stem, since provenance must not publish local paths."""
        model = self.config.model
        return Path(model).stem if model.endswith(SUFFIX) else model

    @property
    def device(self) -> str:
        """The device in use, ``cpu`` or ``cuda:0``."""
        return str(self._device)

    def close(self) -> None:
        """Free the device memory. The object cannot be used afterwards."""
        self._networks = None
        self._release()

    def warm_up(self, height: int, width: int) -> None:
        """Fuse a grey pair, so that the first real pair does not pay for first-time initialization.

        On CUDA this captures the graph of 8-bit images without a text; other graphs are captured when first used.

        :param height: of the pair [pixels]
        :param width: of the pair [pixels]
        """
        steps = None
        if isinstance(self._networks, ReferenceNetworks):  # a pair takes minutes on a CPU
            height, width, steps = min(height, 64), min(width, 64), 1
        grey = np.full((height, width), 127, np.uint8)
        for _ in range(1 if self.graphs is None else 2):  # the second one is captured
            self.fuse(np.repeat(grey[:, :, None], 3, 2), grey, steps=steps)

    def fuse(
        self,
        visible: np.ndarray,
        infrared: np.ndarray,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int | None = None,
        emphasis: Emphasis | None = None,
        keep_plain: bool = False,
        confidence: bool = False,
    ) -> FusionResult:
        """Fuse one aligned pair.

        :param visible: uint8 or uint16 [H, W, 3] RGB; if it is grey everywhere, so is the result
        :param infrared: uint8 or uint16 [H, W]; 16 bits are stretched to 8 by percentiles (:mod:`image.thermal`)
        :param steps: reverse steps; ``steps``, ``sampler`` and ``seed`` default to the configuration
        :param emphasis: the objects to emphasize; where the strength is 0 the bytes are those of the plain fusion
        :param keep_plain: return the image without the emphasis as well
        :param confidence: compute :attr:`.FusionResult.confidence`
        :raises CheckpointError: an emphasis is given and the model has no text re-modulation, or the confidence is
            requested and the model has none
        :raises ImageError: dtypes or sizes are not as stated
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
        if confidence:
            self.require_confidence()
        settings = self._settings(steps, sampler, seed, confidence=confidence)
        networks = self._open()
        work = functools.partial(self._fuse, networks, visible, infrared, settings, emphasis, keep_plain)
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
        """Restore one source alone, when the other camera is missing (equation 1).

        A visible image keeps its restored color; an infrared one, or a grey visible one, comes out grey. The provenance
        key ``sources`` is ``visible`` or ``infrared``.

        :param visible: uint8 or uint16 [H, W, 3] RGB, or None
        :param infrared: uint8 or uint16 [H, W], or None; exactly one of the two is given
        :param steps: reverse steps; ``steps``, ``sampler`` and ``seed`` default to the configuration
        :raises ValueError: neither or both are given
        :raises TextDifuseError: as a fusion does
        """
        if (visible is None) == (infrared is None):
            raise ValueError("restore takes the visible or the infrared image, one of them")
        settings = self._settings(steps, sampler, seed)
        if visible is not None:
            check_visible(visible)
            source, sensor = visible, VISIBLE
        else:
            assert infrared is not None
            check_infrared(infrared)
            source, sensor = np.repeat(to_uint8(infrared)[:, :, None], 3, 2), INFRARED
        networks = self._open()
        return self._within_memory(lambda: self._restore(networks, source, sensor, settings), *source.shape[:2])

    @property
    def has_modulation(self) -> bool:
        """Whether the model has a text re-modulation.

        :raises DeviceError: closed
        """
        return self._open().modulation is not None

    def require_modulation(self) -> None:
        """Check that the model has a text re-modulation.

        :raises CheckpointError: it has no text re-modulation
        """
        if not self.has_modulation:
            remedy = "leave the text empty, or add one with textdifuse train modulation"
            raise CheckpointError(
                f"the model {self.model_name}", "one with a text re-modulation", "one without", remedy
            )

    @property
    def has_confidence(self) -> bool:
        """Whether the model knows how sure its pixels are.

        :raises DeviceError: closed
        """
        return self._open().config.luma_prior > 0

    def require_confidence(self) -> None:
        """Check that the model knows how sure its pixels are.

        :raises CheckpointError: its variance says nothing about the image
        """
        if not self.has_confidence:
            remedy = "leave the confidence out, or train the model with --objective all_steps"
            raise CheckpointError(
                f"the model {self.model_name}", "one that gives a confidence", "one without a variance of x0", remedy
            )

    def _release(self) -> None:
        """Return unused device memory."""
        if self.graphs is not None:
            self.graphs.clear()
        if self._device.type == "cuda":
            empty_cache()

    def _open(self) -> FusionNetworks:
        if self._networks is None:
            raise DeviceError("the fuser", "open", "closed")
        return self._networks

    def _settings(
        self, steps: int | None, sampler: str | None, seed: int | None, *, confidence: bool = False
    ) -> CallSettings:
        """Fill in the settings of a call from the configuration."""
        return CallSettings(
            self.config.steps if steps is None else steps,
            self.config.sampler if sampler is None else sampler,
            self.config.seed if seed is None else seed,
            confidence=confidence,
        )

    def _within_memory(self, work: Callable[[], FusionResult], height: int, width: int) -> FusionResult:
        """Run ``work``; an out-of-memory error becomes a DeviceError, and reserved memory is freed."""
        with torch.inference_mode():
            try:
                return work()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
        # After the except block, where the error no longer keeps its frames' tensors alive.
        self._release()
        remedy = "fuse smaller images, or on another device"
        raise DeviceError(f"the memory of {self.device}", "enough", f"too little for {width} x {height} pixels", remedy)

    def _fuse(
        self,
        networks: FusionNetworks,
        visible: np.ndarray,
        infrared: np.ndarray,
        settings: CallSettings,
        emphasis: Emphasis | None,
        keep_plain: bool,
    ) -> FusionResult:
        clock = Stopwatch(self._device)
        images = upload(visible, self._device), upload(to_uint8(infrared), self._device)
        graphs = self.graphs if settings.steps <= MAX_STEPS else None
        pipeline = self._pipeline(networks, settings, full_frame=graphs is not None)
        fusion: Fusion | ReferenceFusion | None = None
        image = None
        if graphs is not None and isinstance(pipeline, Pipeline):
            fusion, image = self._replayed(graphs, pipeline, images, settings, emphasis, clock)
        if fusion is None:
            fusion = pipeline.run(
                *images, settings.generator(), emphasis, confidence=settings.confidence, lap=clock.lap
            )
        grey = is_grey(visible)
        fused = (fusion.image(grey=grey) if image is None or grey else image).cpu().numpy()
        plain = fusion.image(fusion.plain_luma, grey=grey).cpu().numpy() if keep_plain and emphasis else None
        spread = fusion.confidence()
        confidence = None if spread is None else spread.cpu().numpy()
        clock.lap("finish")
        mask = None if emphasis is None else emphasis.mask()
        return FusionResult(
            fused, self._provenance(networks, settings, emphasis), clock.laps(), mask, plain, confidence
        )

    def _replayed(
        self,
        graphs: Graphs,
        pipeline: Pipeline,
        images: tuple[Tensor, Tensor],
        settings: CallSettings,
        emphasis: Emphasis | None,
        clock: Stopwatch,
    ) -> tuple[Fusion | None, Tensor | None]:
        """The fusion of a pair, and its image, by CUDA graphs; (None, None) while none is captured.

        The host measures the objects in between, so the emphasis is a second graph; without one it runs operation by
        operation.
        """
        clock.lap("prepare")
        key = (bool(emphasis), settings.key, *((item.shape, item.dtype) for item in images))
        replayed = graphs.replay(key, lambda: _plain_work(pipeline, settings, bool(emphasis)), images)
        if replayed is None:
            return None, None
        clock.lap("graph")
        plain, image = replayed
        if not emphasis:
            return plain, image
        objects = pipeline.objects_of(plain, emphasis)
        found = None
        if not objects.faint:
            amounts = objects.amounts(plain.estimates[0].x0)
            found = graphs.replay_second(
                key, lambda outputs: _emphasis_work(pipeline, outputs[0]), (amounts, objects.soft)
            )
        fusion, image = found or (pipeline.emphasize(plain, objects), None)
        clock.lap("objects")
        return fusion, image

    def _restore(
        self, networks: FusionNetworks, image: np.ndarray, sensor: str, settings: CallSettings
    ) -> FusionResult:
        clock = Stopwatch(self._device)
        pipeline = self._pipeline(networks, settings)
        stored = upload(image, self._device)
        grey = sensor == INFRARED or is_grey(image)
        restored = pipeline.restore(stored, sensor, settings.generator(), grey=grey, lap=clock.lap).cpu().numpy()
        clock.lap("finish")
        return FusionResult(restored, {**self._provenance(networks, settings), "sources": sensor}, clock.laps())

    def _pipeline(
        self, networks: FusionNetworks, settings: CallSettings, *, full_frame: bool = False
    ) -> Pipeline | ReferencePipeline:
        if isinstance(networks, ReferenceNetworks):
            from textdifuse_ros.fusion.reference import ReferencePipeline  # Pillow takes a while to import

            return ReferencePipeline(networks, self.schedule, settings.steps, settings.rule)
        return Pipeline(networks, self.schedule, settings.steps, settings.rule, full_frame=full_frame)

    def _provenance(
        self, networks: FusionNetworks, settings: CallSettings, emphasis: Emphasis | None = None
    ) -> dict[str, str | int | float]:
        text = {} if emphasis is None else emphasis.provenance
        return {
            **text,
            **networks.provenance,
            "model": self.model_name,
            "weights": self.weights,
            "steps": settings.steps,
            "sampler": settings.sampler,
            "seed": settings.seed,
            "device": self.device,
            "precision": str(self.dtype).removeprefix("torch."),
            "version": __version__,
        }


def _plain_work(pipeline: Pipeline, settings: CallSettings, record: bool) -> Work:
    """The work of the first graph: a plain fusion and its image."""
    tape = NoiseTape(settings.generator())

    def run(visible: Tensor, infrared: Tensor) -> tuple[Fusion, Tensor]:
        fusion = pipeline.run(visible, infrared, tape.rewound(), record=record, confidence=settings.confidence)
        return fusion, fusion.image()

    return run


def _emphasis_work(pipeline: Pipeline, plain: Fusion) -> Work:
    """The work of the second graph: the emphasized fusion and its image."""
    modulation = pipeline.networks.modulation
    assert modulation is not None

    def run(amounts: Tensor, soft: Tensor) -> tuple[Fusion, Tensor]:
        fusion = pipeline.emphasize(plain, FullFrameModulation(modulation, plain.sources, amounts, soft))
        return fusion, fusion.image()

    return run


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU's allocator has no exception type of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
