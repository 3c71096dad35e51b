"""CUDA graphs: the same bytes as operation by operation; and, on any machine, code that can be recorded."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from textdifuse_ros.checkpoint import find_checkpoint
from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.diffusion.samplers import NoiseCrop, NoiseTape, by_name, fork
from textdifuse_ros.diffusion.samplers.base import draw_noise
from textdifuse_ros.diffusion.schedule import by_name as schedule_by_name
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.graphs import Graphs
from textdifuse_ros.fusion.modulation import FullFrameModulation
from textdifuse_ros.fusion.pipeline import Pipeline
from textdifuse_ros.fusion.weights import load_networks
from textdifuse_ros.image.ranges import upload
from textdifuse_ros.networks.blocks import channels_last

Pair = tuple[np.ndarray, np.ndarray]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def config() -> FuserConfig:
    return FuserConfig(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def fuser(config: FuserConfig) -> Fuser:
    return Fuser.from_config(config)


def pipeline_of(config: FuserConfig, sampler: str = "ddim", *, full_frame: bool = False) -> Pipeline:
    networks, _ = load_networks(find_checkpoint(config.model))
    networks = channels_last(networks.eval().requires_grad_(False))
    schedule = schedule_by_name(networks.config.schedule, networks.config.timesteps)
    return Pipeline(networks, schedule, 2, by_name(sampler), full_frame=full_frame)


def noise() -> NoiseTape:
    return NoiseTape(torch.Generator().manual_seed(0))


def objects(shape: tuple[int, ...], second: float = -0.5) -> Emphasis:
    strengths = np.zeros(shape, np.float32)
    top, left = (min(40, (side - 45) // 2) if side > 45 else 0 for side in shape)  # away from the corner
    strengths[top + 12 : top + 30, left + 12 : left + 35] = 1
    strengths[top + 4 : top + 12, left + 38 : left + 45] = second
    return Emphasis(strengths)


def enlarged(pair: Pair, times: int) -> Pair:
    visible, infrared = (np.kron(image, np.ones((times, times, 1)[: image.ndim], np.uint8)) for image in pair)
    return visible, infrared


def test_drawn_noise_is_the_generators_and_comes_again() -> None:
    like = torch.empty(0)
    shapes = [(2, 3), (4,), (1, 5)]
    plain = torch.Generator().manual_seed(3)
    due = [draw_noise(shape, plain, like) for shape in shapes]
    drawn = NoiseTape(torch.Generator().manual_seed(3))
    first = [draw_noise(shape, drawn, like) for shape in shapes[:2]]
    twin = fork(drawn)
    again = drawn.rewound()
    for source, place in ((drawn, 2), (twin, 2), (again, 0)):
        found = [draw_noise(shape, source, like) for shape in shapes[place:]]
        assert all(torch.equal(x, y) for x, y in zip(found, due[place:], strict=True))
    assert all(torch.equal(x, y) for x, y in zip(first, due[:2], strict=True))


def test_cut_noise_is_that_part_of_the_whole_images() -> None:
    like, shape = torch.empty(0), (1, 1, 8, 12)
    plain, whole = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    cut = NoiseCrop(plain, shape, slice(2, 5), slice(7, 11))
    for _ in range(3):
        part = draw_noise((1, 1, 3, 4), cut, like)
        assert torch.equal(part, draw_noise(shape, whole, like)[..., 2:5, 7:11])


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm_solver"])
def test_the_pipeline_gives_the_fusers_bytes_again_and_again(
    config: FuserConfig, fuser: Fuser, pair: Pair, sampler: str
) -> None:
    """A replay runs the captured computation again, on the same noise."""
    pipeline = pipeline_of(config, sampler)
    images = upload(pair[0]), upload(pair[1])
    emphasis = objects(pair[1].shape)
    plain = fuser.fuse(*pair, steps=2, sampler=sampler)
    due = fuser.fuse(*pair, steps=2, sampler=sampler, emphasis=emphasis)
    assert not np.array_equal(plain.image, due.image)
    tape = noise()
    with torch.inference_mode():
        for _ in range(2):
            fusion = pipeline.run(*images, tape.rewound(), record=True)
            assert np.array_equal(fusion.image().numpy(), plain.image)
            emphasized = pipeline.emphasize(fusion, pipeline.objects_of(fusion, emphasis))
            assert np.array_equal(emphasized.image().numpy(), due.image)
            assert np.array_equal(emphasized.image(emphasized.plain_luma).numpy(), plain.image)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm_solver"])
def test_a_full_frame_is_decoded_for_objects_as_their_regions_are(
    config: FuserConfig, fuser: Fuser, pair: Pair, sampler: str
) -> None:
    """Measured on the host or from tensors alone the same bytes; outside the objects those of the plain fusion."""
    emphasis = Emphasis(np.kron(objects(pair[1].shape, 1.0).strengths, np.ones((4, 4), np.float32)))
    pair = enlarged(pair, 4)
    pipeline = pipeline_of(config, sampler, full_frame=True)
    parts = fuser.fuse(*pair, steps=2, sampler=sampler, emphasis=emphasis)
    with torch.inference_mode():
        fusion = pipeline.run(upload(pair[0]), upload(pair[1]), noise(), record=True)
        measured = pipeline.objects_of(fusion, emphasis)
        found = pipeline.emphasize(fusion, measured).image().numpy()
        modulation = pipeline.networks.modulation
        assert modulation is not None
        amounts = measured.amounts(fusion.estimates[0].x0)
        for _ in range(2):
            tensors = FullFrameModulation(modulation, fusion.sources, amounts, measured.soft)
            assert np.array_equal(pipeline.emphasize(fusion, tensors).image().numpy(), found)
    plain = fusion.image().numpy()
    assert parts.mask is not None
    assert np.array_equal(found[parts.mask == 0], plain[parts.mask == 0])
    changed = np.abs(found.astype(int) - plain).mean()
    assert np.abs(found.astype(int) - parts.image).mean() < 0.1 * changed


class _NothingFromTheHost(TorchFunctionMode):
    """Refuses what brings numbers from the processor to the device: a recording cannot hold that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given, made = (
            {item.device.type for item in tree_leaves(part) if isinstance(item, torch.Tensor)}
            for part in ((args, kwargs), found)
        )
        copies = "cpu" in given or func in (torch.tensor, torch.as_tensor)
        assert not copies or "meta" not in made, f"{func} brings numbers to the device"
        return found


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm_solver"])
def test_what_is_captured_brings_nothing_from_the_host(config: FuserConfig, sampler: str) -> None:
    pipeline = pipeline_of(config, sampler)
    pipeline.networks.to("meta")
    modulation = pipeline.networks.modulation
    assert modulation is not None
    images = tuple(torch.empty(48, 70, planes, dtype=torch.uint8, device="meta") for planes in (3, 1))
    tape = noise()
    amounts, soft = (torch.empty(1, planes, 64, 96, device="meta") for planes in (3, 1))

    def both() -> None:
        fusion = pipeline.run(*images, tape.rewound(), record=True)
        fusion.image()
        pipeline.emphasize(fusion, FullFrameModulation(modulation, fusion.sources, amounts, soft)).image()

    with torch.inference_mode():
        both()  # draws the tape's noise on the host
        with _NothingFromTheHost():
            both()
    for bring in (lambda: torch.tensor(1.0, device="meta"), lambda: torch.zeros(3).to("meta")):
        with pytest.raises(AssertionError, match="brings numbers"), _NothingFromTheHost():
            bring()


class _Computing(Graphs):
    """Runs the computation that a graph would replay."""

    def _capture(self, key: Any, work: Callable[[], Callable[..., Any]], inputs: tuple[torch.Tensor, ...]) -> Any:
        return _Computed(work(), inputs)


class _Computed:
    def __init__(self, work: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> None:
        self.work, self.outputs = work, work(*inputs)

    def replay(self, inputs: tuple[torch.Tensor, ...]) -> Any:
        # Into the tensors that are there, as a replay does.
        for own, new in zip(_tensors(self.outputs), _tensors(self.work(*inputs)), strict=True):
            own.copy_(new)
        return self.outputs


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, item.name) for item in dataclasses.fields(value)]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, (tuple, list)) else []


@pytest.mark.parametrize("steps", [1, 4, 10])
@pytest.mark.parametrize("second", [None, 1.0, -0.5])
def test_the_way_by_graphs_gives_the_bytes_of_the_way_without(
    config: FuserConfig, pair: Pair, steps: int, second: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device", MagicMock())
    pair = enlarged(pair, 3)
    fuser = Fuser.from_config(config)
    fuser.graphs = _Computing(torch.device("cpu"))
    emphasis = None if second is None else objects(pair[1].shape, second)
    other = pair[0][::-1].copy(), pair[1][::-1].copy()
    first, *later = (
        copy.deepcopy(fuser.fuse(*images, steps=steps, emphasis=emphasis, keep_plain=True))
        for images in (pair, other) * 3
    )
    assert (("graph" in later[-1].timings) and "graph" not in first.timings) == (steps <= 8)
    for result in later[1::2]:
        assert np.array_equal(result.image, first.image)
        assert (result.plain is None) == (emphasis is None)
        if result.plain is not None and first.plain is not None and emphasis is not None:
            assert np.array_equal(result.plain, first.plain)
            for value in np.unique(emphasis.strengths[emphasis.strengths != 0]):
                inside = emphasis.strengths == value
                assert (result.plain[inside] != result.image[inside]).any()
    assert not np.array_equal(later[0].image, first.image)


@pytest.mark.parametrize("change", ["rows", "bits", "steps", "seed", "sampler", "text"])
def test_what_differs_in_more_than_values_is_another_graph(
    config: FuserConfig, pair: Pair, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device", MagicMock())
    fuser = Fuser.from_config(config)
    fuser.graphs = _Computing(torch.device("cpu"))
    way: dict[str, Any] = {"steps": 1}
    for _ in range(3):
        known = fuser.fuse(*pair, **way)
    assert "graph" in known.timings
    if change == "rows":
        pair = pair[0][:40].copy(), pair[1][:40].copy()
    elif change == "bits":
        pair = pair[0].astype(np.uint16) * 257, pair[1]
    else:
        way |= {
            "steps": {"steps": 2},
            "seed": {"seed": 1},
            "sampler": {"sampler": "ancestral"},
            "text": {"emphasis": objects(pair[1].shape)},
        }[change]
    assert "graph" not in fuser.fuse(*pair, **way).timings


@pytest.fixture
def on_cuda(config: FuserConfig) -> tuple[Fuser, Fuser]:
    """With graphs, and without."""
    cuda = replace(config, device="cuda", precision="auto")
    return Fuser.from_config(cuda), Fuser.from_config(replace(cuda, cuda_graphs=False))


@needs_cuda
@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm_solver"])
@pytest.mark.parametrize("steps", [1, 4])
def test_cuda_graphs_give_the_same_bytes(on_cuda: tuple[Fuser, Fuser], pair: Pair, sampler: str, steps: int) -> None:
    graphs, eager = on_cuda
    other = pair[0][::-1].copy(), pair[1][::-1].copy()
    way = {"sampler": sampler, "steps": steps}
    for emphasis in (None, objects(pair[1].shape), objects(pair[1].shape, 1.0)):
        first: dict[int, np.ndarray] = {}
        for _ in range(4):
            for number, images in enumerate((pair, other)):
                found = graphs.fuse(*images, emphasis=emphasis, keep_plain=True, **way)  # type: ignore[arg-type]
                # With a text the first one, operation by operation; without, those of a fuser that knows no graphs.
                assert np.array_equal(found.image, first.setdefault(number, found.image))
                due = eager.fuse(*images, **way)  # type: ignore[arg-type]
                plain = found.image if found.plain is None else found.plain
                assert np.array_equal(plain, due.image) and "graph" not in due.timings
        assert "graph" in found.timings


@needs_cuda
def test_cuda_graphs_are_recorded_beside_another_threads_work(on_cuda: tuple[Fuser, Fuser], pair: Pair) -> None:
    graphs, eager = on_cuda
    stop, errors = threading.Event(), []

    def busy() -> None:
        try:
            while not stop.is_set():
                (torch.ones(512, 512).cuda() @ torch.ones(512, 512, device="cuda")).sum().item()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for rows in range(24, 48):  # more sizes than graphs are kept
            images = pair[0][:rows].copy(), pair[1][:rows].copy()
            for _ in range(3):
                assert np.array_equal(graphs.fuse(*images).image, eager.fuse(*images).image)
    finally:
        stop.set()
        thread.join()
    assert not errors


@needs_cuda
def test_cuda_graphs_read_nothing_that_was_freed(on_cuda: tuple[Fuser, Fuser]) -> None:
    graphs, eager = on_cuda
    rng = np.random.default_rng(2)
    pair = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8), rng.integers(0, 256, (480, 640), dtype=np.uint8)
    emphases = None, objects(pair[1].shape, 1.0)
    for _ in range(3):
        for steps in (1, 2, 4):
            for emphasis in emphases:
                graphs.fuse(*pair, steps=steps, emphasis=emphasis)
        torch.cuda.empty_cache()
        for size in (2**20, 2**22, 2**24):
            torch.full((size,), float("nan"), device="cuda")
    for steps in (1, 2, 4):
        assert np.array_equal(graphs.fuse(*pair, steps=steps).image, eager.fuse(*pair, steps=steps).image)


@needs_cuda
def test_cuda_graphs_memory_is_given_back(config: FuserConfig, tmp_path: Path) -> None:
    (torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")).sum().item()  # what libraries keep for good
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    fuser = Fuser.from_config(replace(config, device="cuda"))
    fuser.warm_up(480, 640)
    assert torch.cuda.memory_reserved() > before
    fuser.close()
    assert torch.cuda.memory_reserved() <= before + 2**27
