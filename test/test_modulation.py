"""Text re-modulation: kappa, the decoded regions, the training target, and the training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, with_random_heads
from tiny_images import street

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import BatchShape, CropBatches
from textdifuse_ros.data.masks import random_masks
from textdifuse_ros.data.pack import write_pack
from textdifuse_ros.fusion.cost import count_flops, count_parameters, emphasis_gflops, image_gflops
from textdifuse_ros.fusion.emphasis import RING, Emphasis, amounts, soften
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.regions import MARGIN, bounds, find_regions, merge_sizes
from textdifuse_ros.fusion.weights import join_networks, load_networks, save_networks
from textdifuse_ros.metrics.regions import object_contrast
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.networks.modulation import Modulation
from textdifuse_ros.train.emphasis import emphasized
from textdifuse_ros.train.fusion_task import fusion_trainer
from textdifuse_ros.train.modulation import ModulationStage
from textdifuse_ros.train.state import WEIGHTS

STRENGTHS = (-1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, 1.5, 2.0)


def pyramids(seed: int = 0, side: int = 64) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(1, width, side // cell, side // cell) for width, cell in ((6, 4), (8, 8), (10, 16))]
    visible, infrared = (tuple(torch.randn(size, generator=generator) for size in sizes) for _ in range(2))
    return visible, infrared


def trained_block() -> Modulation:
    """A block with an effect."""
    torch.manual_seed(0)
    block = Modulation((6, 8, 10), 8)
    for level in block.levels:
        torch.nn.init.normal_(level.directions.weight, std=0.5)
    return block.eval()


class TestKappa:
    def test_the_weighted_sources_are_the_two_terms_of_the_fusion_control(self) -> None:
        torch.manual_seed(0)
        networks = DriveNetworks(DriveConfig(**TINY, luma_fine=1)).luma.eval()
        for level in networks.control.levels:
            torch.nn.init.normal_(level.weigh.weight, std=1.0)
        pair = networks.encode_pair(torch.rand(1, 1, 32, 48), torch.rand(1, 1, 32, 48))
        terms = networks.control.weigh_sources(*pair)
        for x, y, fused in zip(*terms, networks.control(*pair), strict=True):
            assert torch.equal(x + y, fused), "bit-identical, or a text would change the plain image"
        assert not torch.equal(*(term[0] for term in terms))

    def test_an_untrained_block_has_no_effect(self) -> None:
        visible, infrared = pyramids()
        block, requested = Modulation((6, 8, 10), 8), torch.rand(1, 3, 64, 64)
        context = block.context(visible, infrared, requested, torch.rand(1, 1, 64, 64))
        for x, y, fused in zip(visible, infrared, block(visible, infrared, requested, context), strict=True):
            assert torch.equal(fused, x + y)

    @pytest.mark.parametrize("direction", range(3))
    def test_inactive_directions_need_not_be_computed(self, direction: int) -> None:
        visible, infrared = pyramids()
        block, requested = trained_block(), torch.zeros(1, 3, 64, 64)
        requested[:, direction, 16:32, 32:48] = 1.5
        context = block.context(visible, infrared, requested, torch.rand(1, 1, 64, 64))
        whole, part, none = (
            block(visible, infrared, requested, context, active) for active in (range(3), [direction], [])
        )
        for actual, expected, plain, x, y in zip(part, whole, none, visible, infrared, strict=True):
            torch.testing.assert_close(actual, expected)
            assert torch.equal(plain, x + y)
            assert not torch.equal(actual, plain)

    def test_only_features_of_objects_change_and_each_source_has_its_own_factor(self) -> None:
        visible, infrared = pyramids()
        block, requested = trained_block(), torch.zeros(1, 3, 64, 64)
        requested[:, 0, 16:32, 32:48] = 1.0
        context = block.context(visible, infrared, requested, torch.rand(1, 1, 64, 64))
        zeros = tuple(torch.zeros_like(level) for level in visible)
        for level, cell in enumerate((4, 8, 16)):
            covered = requested[:, :1, ::cell, ::cell].expand(-1, visible[level].shape[1], -1, -1) > 0
            fused = block(visible, infrared, requested, context)[level]
            assert torch.equal(fused[~covered], (visible[level] + infrared[level])[~covered])
            assert (fused != visible[level] + infrared[level])[covered].float().mean() > 0.9
            # Without the infrared features the result is kappa^X times the visible ones: a positive factor.
            alone = block(visible, zeros, requested, context)[level]
            assert (alone / visible[level])[covered].min() > 0

    def test_kappa_is_continuous_in_the_amount(self) -> None:
        visible, infrared = pyramids()
        block = trained_block()
        before = tuple(x + y for x, y in zip(visible, infrared, strict=True))
        requested = torch.zeros(1, 3, 64, 64)
        requested[:, 1, 8:40, 8:40] = 1e-4
        context = block.context(visible, infrared, requested, torch.rand(1, 1, 64, 64))
        for fused, plain in zip(block(visible, infrared, requested, context), before, strict=True):
            assert 0 < (fused - plain).abs().max() < 1e-2

    def test_the_context_of_a_part_equals_that_part_of_the_full_context(self) -> None:
        visible, infrared = pyramids(side=512)
        block, requested = trained_block(), torch.zeros(1, 3, 512, 512)
        requested[:, 0, 40:90, 200:300] = 1.0
        plain = torch.rand(1, 1, 512, 512)
        whole = block.context(visible, infrared, requested, plain)
        for top, bottom, left, right in ((4, 12, 24, 40), (0, 20, 20, 64), (0, 64, 0, 64)):
            rows, columns = slice(top, bottom), slice(left, right)
            cropped = requested[..., 8 * top : 8 * bottom, 8 * left : 8 * right]
            part = block.context(visible, infrared, cropped, plain, (rows, columns))
            torch.testing.assert_close(part, whole[..., rows, columns])

    def test_the_modulation_depends_on_the_surroundings(self) -> None:
        """The same object before a dark and before a bright background."""
        visible, infrared = pyramids()
        block, requested = trained_block(), torch.zeros(1, 3, 64, 64)
        requested[:, 0, 24:40, 24:40] = 1.0
        dark = torch.zeros(1, 1, 64, 64)
        bright = torch.where(requested[:, :1] > 0, dark, torch.ones(()))
        before_dark, before_bright = (
            block(visible, infrared, requested, block.context(visible, infrared, requested, plain))[0][..., 8, 8]
            for plain in (dark, bright)
        )
        assert not torch.allclose(before_dark, before_bright)


class TestMask:
    def test_the_mask_is_zero_outside_and_one_inside_the_border(self) -> None:
        strengths = np.zeros((40, 60), np.float32)
        strengths[10:30, 20:60] = -0.5
        soft = soften(strengths)
        assert not soft[strengths == 0].any() and (soft[strengths != 0] > 0).all()
        assert soft[20, 20] < 0.3 and (soft[14:26, 24:] == 1).all(), "no soft border at the edge of the image"

    def test_regions_contain_every_object_with_its_margin(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(40):
            strengths = np.zeros((12 * 16, 20 * 16), np.float32)
            for _ in range(rng.integers(1, 6)):
                top, left = rng.integers(0, 180), rng.integers(0, 300)
                strengths[top : top + rng.integers(1, 60), left : left + rng.integers(1, 60)] = 1
            regions = find_regions(strengths)
            held = np.zeros(strengths.shape, bool)
            for region in regions:
                top, left, bottom, right = region.core
                held[top:bottom, left:right] = True
                up, west, down, east = region.whole
                assert not any(edge % 16 for edge in region.whole)
                assert up <= max(0, top - MARGIN) and down >= min(192, bottom + MARGIN)
                assert west <= max(0, left - MARGIN) and east >= min(320, right + MARGIN)
            assert held[strengths != 0].all()
            assert sum(region.pixels for region in regions) <= strengths.size

    def test_distant_objects_have_separate_regions_and_near_ones_share_one(self) -> None:
        strengths = np.zeros((160, 480), np.float32)
        strengths[60:80, 40:60] = strengths[60:80, 420:440] = 1
        assert len(find_regions(strengths)) == 2
        strengths[60:80, 64:80] = 1
        assert len(find_regions(strengths)) == 2
        assert find_regions(np.zeros((160, 480), np.float32)) == []

    def test_regions_of_similar_size_are_enlarged_to_one_size(self) -> None:
        strengths = np.zeros((480, 640), np.float32)
        for top, left, side in ((24, 24, 20), (20, 580, 40), (424, 304, 56)):
            strengths[top : top + side, left : left + side] = 1
        regions = find_regions(strengths)
        assert len({region.size for region in regions}) == 3
        batches = merge_sizes(regions, 480, 640)
        assert sorted(map(len, batches)) == [1, 2], "batches are of powers of two"
        group = [region for batch in batches for region in batch]
        assert {region.size for region in group} == {(96, 96)}
        for region, before in zip(sorted(group, key=str), sorted(regions, key=str), strict=True):
            assert region.core == before.core
            (up, west, down, east), (top, left, bottom, right) = region.whole, before.whole
            assert up <= top and west <= left and down >= bottom and east >= right
            assert min(up, west) >= 0 and down <= 480 and east <= 640
            assert not any(edge % 16 for edge in region.whole)
        strengths[100:400, 100:500] = 1  # enlarging the others to this size would cost more than a second batch
        assert sorted(len(group) for group in merge_sizes(find_regions(strengths), 480, 640)) == [1, 1, 2]

    def test_there_are_few_shapes_whatever_the_objects(self) -> None:
        """PyTorch keeps memory for each of them."""
        rng = np.random.default_rng(1)
        batches, parts = set(), set()
        for _ in range(300):
            strengths = np.zeros((480, 640), np.float32)
            for _ in range(rng.integers(1, 7)):
                top, left = rng.integers(0, 472), rng.integers(0, 634)
                strengths[top : top + rng.integers(8, 200), left : left + rng.integers(6, 160)] = 1
            groups = merge_sizes(find_regions(strengths), 480, 640)
            batches |= {(len(group), *group[0].size) for group in groups}
            top, left, bottom, right = bounds(groups, 480, 640, RING)
            parts.add((bottom - top, right - left))
            for region in (region for group in groups for region in group):
                up, west, down, east = region.whole
                assert top <= up <= region.core[0] and region.core[2] <= down <= bottom
                assert left <= west <= region.core[1] and region.core[3] <= east <= right
        assert len(batches) <= 100 and len(parts) <= 56

    def test_a_tenth_of_the_image_costs_at_most_15_percent(self) -> None:
        with torch.device("meta"):
            networks = DriveNetworks(DriveConfig(modulation_width=32))
        counts = count_flops(networks, 480, 640)
        assert 0 < count_parameters(networks)["modulation"] < 0.2e6
        for boxes in ([(160, 200, 200, 154)], [(60, 60, 124, 124), (300, 420, 124, 124)]):
            strengths = np.zeros((480, 640), np.float32)
            for top, left, width, height in boxes:
                strengths[top : top + height, left : left + width] = 1
            assert strengths.mean() >= 0.099
            for steps in (1, 2, 4):
                extra = emphasis_gflops(counts, strengths, steps)
                assert 0 < extra <= 0.15 * image_gflops(counts, steps)["total"]
        assert emphasis_gflops(counts, np.zeros((480, 640), np.float32), 4) == 0


class TestTarget:
    """The training target: the appearance of emphasized objects."""

    def scene(self, inside: float, around: float, warmth: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        mask = np.zeros((80, 80), bool)
        mask[30:50, 34:46] = True
        plain = np.where(mask, inside, around) + rng.normal(0, 0.03, mask.shape)
        infrared = np.where(mask, warmth, 0.5)
        return np.clip(plain, 0, 1).astype(np.float32), infrared.astype(np.float32), mask

    @pytest.mark.parametrize(
        ("inside", "around"), [(0.6, 0.3), (0.3, 0.6), (0.9, 0.8), (0.1, 0.15), (0.5, 0.46), (0.97, 0.2)]
    )
    def test_contrast_increases_with_strength_and_keeps_its_sign(self, inside: float, around: float) -> None:
        plain, infrared, mask = self.scene(inside, around)
        images = [emphasized(plain, infrared, [mask], [strength]) for strength in STRENGTHS]
        sign = np.sign(inside - around)
        contrasts = [sign * float(p[mask].mean() - p[~mask].mean()) for p in images]
        assert all(low < high + 1e-6 for low, high in pairwise(contrasts))
        assert contrasts[0] > 0 and contrasts[-1] > contrasts[3]
        for image in images:
            assert np.array_equal(image[~mask], plain[~mask])
        np.testing.assert_allclose(images[3], plain, atol=1e-6)

    def test_texture_is_preserved(self) -> None:
        plain, infrared, mask = self.scene(0.55, 0.4)
        changed = emphasized(plain, infrared, [mask], [1.0])
        assert np.corrcoef(changed[mask], plain[mask])[0, 1] > 0.95
        assert changed[mask].std() > plain[mask].std()

    def test_without_contrast_a_warm_object_becomes_brighter_and_a_cold_one_darker(self) -> None:
        for warmth, sign in ((0.9, 1), (0.1, -1)):
            plain, infrared, mask = self.scene(0.5, 0.5, warmth)
            assert sign * (emphasized(plain, infrared, [mask], [1.0]) - plain)[mask].mean() > 0.05
            requested = amounts(plain, infrared, mask.astype(np.float32))
            assert requested[0 if sign > 0 else 1][mask].min() > 0.9
        assert amounts(*self.scene(0.5, 0.4)[:2], -mask.astype(np.float32))[2][mask].min() == 1

    def test_amounts_sum_to_the_strength_and_are_zero_elsewhere(self) -> None:
        rng = np.random.default_rng(0)
        plain, infrared, mask = self.scene(0.51, 0.5)
        strengths = np.where(mask, rng.uniform(-1, 2, mask.shape), 0).astype(np.float32)
        requested = amounts(plain, infrared, strengths)
        np.testing.assert_allclose(requested[0] + requested[1] - requested[2], strengths, atol=1e-6)
        assert (requested >= 0).all() and not requested[:, ~mask].any()

    def test_touching_objects_can_change_in_opposite_directions(self) -> None:
        plain = np.full((64, 64), 0.5, np.float32)
        apart = np.zeros((64, 64), np.uint16)
        apart[20:40, 16:32], apart[20:40, 32:48] = 7, 3
        plain[apart == 7], plain[apart == 3] = 0.8, 0.3
        strengths = (apart > 0).astype(np.float32)
        separate = amounts(plain, plain, strengths, apart)
        assert separate[0][apart == 7].min() > 0.95 and separate[1][apart == 3].min() > 0.95
        joint = amounts(plain, plain, strengths)
        assert joint[0][apart == 7].min() == joint[0][apart == 3].min(), "without instances they are one object"


def test_an_object_of_strength_zero_is_excluded_from_the_surroundings() -> None:
    plain, apart = np.full((64, 64), 0.5, np.float32), np.zeros((64, 64), np.uint16)
    apart[20:40, 10:30], apart[20:40, 30:50] = 1, 2
    plain[apart == 1], plain[apart == 2] = 0.505, 1.0
    shares = []
    for strength in (0.0, 1e-3):
        strengths = (apart == 1) + np.float32(strength) * (apart == 2)
        shares.append(amounts(plain, plain, strengths.astype(np.float32), apart)[0][apart == 1].min())
    assert shares[0] == shares[1] > 0.5


def test_random_masks_do_not_overlap_and_depend_only_on_the_generator() -> None:
    item = street(0, 120, 160)
    assert item.infrared is not None
    visible, infrared = item.visible[..., 1].astype(np.float32) / 255, item.infrared.astype(np.float32) / 255
    draws = [random_masks(visible, infrared, np.random.default_rng(n)) for n in range(40)]
    assert sum(len(masks) for masks in draws) > 60
    for masks in draws:
        for mask in masks:
            assert 30 <= mask.sum() <= 0.3 * mask.size
        assert not masks or np.sum(masks, 0).max() == 1
    again = random_masks(visible, infrared, np.random.default_rng(0))
    assert all(np.array_equal(first, second) for first, second in zip(draws[0], again, strict=True))


class TestTraining:
    CONFIG = TrainConfig(
        stage="modulation", steps=40, learning_rate=2e-2, warm_up=5, ema=0.8, workers=0, precision="float32"
    )

    @pytest.fixture(scope="class")
    def sensitive_checkpoint(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Small random networks whose images depend strongly on the features and not on the noise."""
        torch.manual_seed(0)
        networks = with_random_heads(DriveNetworks(DriveConfig(**TINY)))
        decoder = networks.luma.decoder
        with torch.no_grad():
            decoder.head.weight.mul_(4)
            for layer in decoder.noisy:
                layer.weight.zero_()
        path = tmp_path_factory.mktemp("models") / "sensitive.safetensors"
        save_networks(path, networks, {})
        return path

    @pytest.fixture(scope="class")
    def pack(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("pack") / "images.pack"
        write_pack(path, [street(n, 100, 140) for n in range(3)])
        return path

    @pytest.fixture(autouse=True)
    def small_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ModulationStage, "shapes", (BatchShape(48, 3, 3, pairs=True),))

    def test_the_block_is_added_and_only_it_learns_to_increase_contrast(
        self, pack: Path, sensitive_checkpoint: Path, tmp_path: Path
    ) -> None:
        """Random networks suffice, since the target is relative to their own plain image."""
        trainer = fusion_trainer(self.CONFIG, tmp_path, pack, sensitive_checkpoint)
        batch = CropBatches(str(pack), ModulationStage.shapes, seed=99, first=0, count=1)[0]

        def loss() -> float:
            with torch.no_grad():
                return trainer.task.stage(batch, torch.Generator().manual_seed(0))["loss"].item()

        first = loss()
        trainer.run()
        assert loss() < 0.95 * first
        before, after = (load_networks(path)[1] for path in (sensitive_checkpoint, tmp_path / WEIGHTS))
        assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
        added = {name for name in after.tensors if name not in before.tensors}
        assert added and all(name.startswith("modulation.") for name in added)
        assert after.provenance["history"][-1]["stage"] == "modulation"

        fuser = Fuser.from_config(FuserConfig(model=str(tmp_path / WEIGHTS), device="cpu", precision="float32"))
        contrast = dict.fromkeys((-1.0, 0.0, 0.5, 2.0), 0.0)  # such a small block saturates at 1
        mask = np.zeros((100, 140), bool)
        mask[30:70, 40:70] = True
        for number in range(3):
            item = street(number, 100, 140)
            for strength in contrast:
                emphasis = Emphasis(np.where(mask, np.float32(strength), np.float32(0)))
                grey = fuser.fuse(item.visible, item.infrared, emphasis=emphasis).image.astype(np.float64).mean(2)
                contrast[strength] += object_contrast(grey, mask[None])[0]
        assert contrast[-1.0] < contrast[0.0] < contrast[0.5] < contrast[2.0]
        assert contrast[2.0] > 1.1 * contrast[0.0]

    def test_joining_checkpoints_keeps_the_block(
        self, tiny_checkpoint: Path, tiny_text_checkpoint: Path, tmp_path: Path
    ) -> None:
        join_networks(tiny_text_checkpoint, tiny_checkpoint, tmp_path / "joined.safetensors")
        assert load_networks(tmp_path / "joined.safetensors")[0].modulation is not None
