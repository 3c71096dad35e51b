"""Training data: image packs, crops and recipes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_images import street

from textdifuse_ros.data import degradations as d
from textdifuse_ros.data.crops import BatchShape, CropBatches
from textdifuse_ros.data.medical import rician_noise
from textdifuse_ros.data.pack import ImagePack, write_pack
from textdifuse_ros.data.pairs import Item, harvard_sources, load_shuffled, road_sources
from textdifuse_ros.data.recipes import GAIN, degrade_infrared, degrade_visible
from textdifuse_ros.errors import FileError


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "images.pack"
    lone = Item("lone", street(9).visible)
    assert write_pack(path, [street(0), lone, street(1, 70, 200)]) == 3
    return path


def test_a_pack_returns_the_written_images(pack: Path) -> None:
    opened = ImagePack(pack)
    assert [entry.name for entry in opened.entries] == ["street0", "lone", "street1"]
    first, lone, last = opened.entries
    assert np.array_equal(opened.visible(first), street(0).visible)
    assert np.array_equal(opened.infrared(last), street(1, 70, 200).infrared)
    assert np.array_equal(opened.sky(first), street(0).sky)
    assert lone.infrared < 0 and opened.sky(lone) is None


def test_a_truncated_or_missing_pack_is_rejected(pack: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cut.pack"
    copy.write_bytes(pack.read_bytes()[:-1])
    (tmp_path / "cut.pack.json").write_bytes(pack.with_suffix(".pack.json").read_bytes())
    with pytest.raises(FileError, match="bytes long"):
        ImagePack(copy)
    with pytest.raises(FileError, match="no such file"):
        ImagePack(tmp_path / "absent.pack")


def test_a_failed_write_keeps_the_previous_pack(tmp_path: Path) -> None:
    copy = tmp_path / "a.pack"
    write_pack(copy, [street(0)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken() -> Iterator[Item]:
        yield street(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_pack(copy, broken())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_batch_depends_only_on_seed_and_number(pack: Path) -> None:
    shapes = (BatchShape(32, 3, 2), BatchShape(48, 2, 2, pairs=True))
    batches = CropBatches(str(pack), shapes, seed=5, first=0, count=4)
    resumed = CropBatches(str(pack), shapes, seed=5, first=3, count=1)
    for expected, actual in zip(batches[3], resumed[0], strict=True):
        assert torch.equal(expected, actual)
    other_seed = CropBatches(str(pack), shapes, seed=6, first=3, count=1)[0]
    assert not torch.equal(resumed[0].visible, other_seed.visible)
    assert batches[0].visible.shape == (3, 3, 32, 32)
    assert batches[0].infrared.shape == (2, 1, 32, 32)
    with pytest.raises(IndexError):
        batches[4]


def test_the_crops_of_a_pair_show_the_same_place(tmp_path: Path) -> None:
    """The infrared image of the pack is the luma of the visible one, so that the targets agree unless it is dark."""
    grey = street(3).visible.mean(2).astype(np.uint8)
    path = tmp_path / "aligned.pack"
    write_pack(path, [Item("aligned", np.repeat(grey[..., None], 3, 2), grey)])
    batch = CropBatches(str(path), (BatchShape(48, 6, 6, pairs=True),), seed=0, first=0, count=3)[1]
    difference = (batch.infrared_target[:, 0] - batch.visible_target[:, 0]).abs().flatten(1).median(1).values
    assert (difference < 1e-6).sum() >= 2


def test_recipes_keep_shape_and_range_and_are_reproducible() -> None:
    item = street(0)
    assert item.infrared is not None
    visible, infrared = item.visible.astype(np.float32) / 255, item.infrared.astype(np.float32) / 255
    for seed in range(60):
        dark, target = degrade_visible(visible, item.sky, np.random.default_rng(seed))
        again, _ = degrade_visible(visible, item.sky, np.random.default_rng(seed))
        assert np.array_equal(dark, again)
        noisy, _ = degrade_infrared(infrared, np.random.default_rng(seed))
        for degraded, clean in ((dark, visible), (target, visible), (noisy, infrared)):
            assert degraded.dtype == np.float32 and degraded.shape == clean.shape
            assert degraded.min() >= 0 and degraded.max() <= 1 and np.isfinite(degraded).all()


def test_the_target_of_a_night_is_at_most_the_gain_brighter() -> None:
    """Where 1 / 1000 of the light is left, the target stays dark: black is not brightened to fog."""
    clean = np.full((64, 64, 3), 0.9, np.float32)
    sky = np.full((64, 64), 255, np.uint8)
    darkest = []
    for seed in range(200):
        image, target = degrade_visible(clean, sky, np.random.default_rng(seed))
        if image.mean() < 0.5 and image.std() < 0.05:
            darkest.append((image.mean(), target.mean()))
    darkest.sort()
    assert darkest[0][1] < 0.5 < darkest[-1][1]
    limit = GAIN ** (1 / d.GAMMA)
    # Quantization and the noise floor brighten the darkest images a little; hence the margin.
    assert all(target <= limit * (image + 0.03) for image, target in darkest)


def test_the_public_data_sets_are_found(data_folder: Path) -> None:
    names = set()
    for item in load_shuffled(road_sources(data_folder)):
        names.add(item.name.split("/")[0])
        assert item.visible.dtype == np.uint8 and item.visible.shape[2] == 3
        if item.infrared is not None:
            assert item.infrared.shape == item.visible.shape[:2]
        if names >= {"pair", "camvid", "bsds", "large"}:
            break
    assert names >= {"pair", "camvid", "bsds", "large"}


def test_an_empty_data_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="roadscene"):
        road_sources(tmp_path)


def test_every_rank_draws_different_crops(pack: Path) -> None:
    shapes = (BatchShape(32, 3, 2),)
    first, second, again = (CropBatches(str(pack), shapes, 5, 0, 1, rank=rank)[0] for rank in (0, 1, 1))
    assert not torch.equal(first.visible, second.visible)
    assert torch.equal(second.visible, again.visible)


def test_recipes_by_name(pack: Path) -> None:
    """``none`` keeps crops clean; ``medical`` degrades some of them, and its target is always the clean crop."""
    shapes = (BatchShape(32, 40, 40),)
    clean, medical, road = (CropBatches(str(pack), shapes, 5, 0, 1, name)[0] for name in ("none", "medical", "road"))
    assert torch.equal(clean.visible, clean.visible_target) and torch.equal(clean.infrared, clean.infrared_target)
    for image, target in ((medical.visible, medical.visible_target), (medical.infrared, medical.infrared_target)):
        unchanged = (image == target).flatten(1).all(1).float().mean()
        assert 0.2 < unchanged < 0.8
        assert (image - target).abs().mean() < 0.1
        assert image.min() >= 0 and image.max() <= 1
    assert torch.equal(medical.visible_target[0], clean.visible_target[0])  # later crops depend on the recipe's draws
    # Only the road recipe contains nights.
    assert road.visible.mean((1, 2, 3)).min() < 0.5 * medical.visible.mean((1, 2, 3)).min()


def test_rician_noise_is_rayleigh_at_black_and_normal_at_signal() -> None:
    rng = np.random.default_rng(0)
    black = rician_noise(np.zeros((300, 300), np.float32), 0.05, rng)
    assert black.min() >= 0
    assert black.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02)
    bright = rician_noise(np.full((300, 300), 0.6, np.float32), 0.05, rng)
    assert bright.std() == pytest.approx(0.05, rel=0.02)


def test_the_medical_training_pairs_are_found(data_folder: Path) -> None:
    sources = harvard_sources(data_folder / "harvard")
    kinds = {source.name.split("/")[0]: source for source in sources}
    assert set(kinds) == {"ct-mri", "pet-mri", "spect-mri"}
    assert all("/train/a/" in str(source.visible) and "/train/b/" in str(source.infrared) for source in sources)
    pet = kinds["pet-mri"].load()
    assert pet.infrared is not None and pet.sky is None
    assert pet.visible.shape == (256, 256, 3) and pet.infrared.shape == (256, 256)
