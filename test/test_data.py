"""Training data: the pack, the crops, and degradations that mean what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_images import street

from textdifuse_ros.data import degradations as d
from textdifuse_ros.data.crops import CropBatches, Shape
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


def test_pack_gives_back_what_was_written(pack: Path) -> None:
    opened = ImagePack(pack)
    assert [entry.name for entry in opened.entries] == ["street0", "lone", "street1"]
    first, lone, last = opened.entries
    assert np.array_equal(opened.visible(first), street(0).visible)
    assert np.array_equal(opened.infrared(last), street(1, 70, 200).infrared)
    assert np.array_equal(opened.sky(first), street(0).sky)
    assert lone.infrared < 0 and opened.sky(lone) is None


def test_pack_that_was_cut_is_refused(pack: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cut.pack"
    copy.write_bytes(pack.read_bytes()[:-1])
    (tmp_path / "cut.pack.json").write_bytes(pack.with_suffix(".pack.json").read_bytes())
    with pytest.raises(FileError, match="bytes long"):
        ImagePack(copy)
    with pytest.raises(FileError, match="no such file"):
        ImagePack(tmp_path / "absent.pack")


def test_a_pack_that_fails_leaves_the_one_before(pack: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a.pack"
    write_pack(copy, [street(0)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken() -> Iterator[Item]:
        yield street(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_pack(copy, broken())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_batch_depends_on_its_number_alone(pack: Path) -> None:
    shapes = (Shape(32, 3, 2), Shape(48, 2, 2, pairs=True))
    all_of_them = CropBatches(str(pack), shapes, seed=5, first=0, count=4)
    later = CropBatches(str(pack), shapes, seed=5, first=3, count=1)
    for one, other in zip(all_of_them[3], later[0], strict=True):
        assert torch.equal(one, other)
    other_seed = CropBatches(str(pack), shapes, seed=6, first=3, count=1)[0]
    assert not torch.equal(later[0].visible, other_seed.visible)
    assert all_of_them[0].visible.shape == (3, 3, 32, 32)
    assert all_of_them[0].infrared.shape == (2, 1, 32, 32)
    with pytest.raises(IndexError):
        all_of_them[4]


def test_pairs_show_the_same_place(pack: Path, tmp_path: Path) -> None:
    """A pack whose infrared is its own luma: targets of a pair agree wherever the visible one is not a night's."""
    grey = street(3).visible.mean(2).astype(np.uint8)
    path = tmp_path / "aligned.pack"
    write_pack(path, [Item("aligned", np.repeat(grey[..., None], 3, 2), grey)])
    batch = CropBatches(str(path), (Shape(48, 6, 6, pairs=True),), seed=0, first=0, count=3)[1]
    difference = (batch.infrared_target[:, 0] - batch.visible_target[:, 0]).abs().flatten(1).median(1).values
    assert (difference < 1e-6).sum() >= 2


def test_degraded_images_stay_images_and_repeat() -> None:
    clean = street(0).visible.astype(np.float32) / 255
    infrared = street(0).infrared
    assert infrared is not None
    warm = infrared.astype(np.float32) / 255
    for seed in range(60):
        image, target = degrade_visible(clean, street(0).sky, np.random.default_rng(seed))
        again, _ = degrade_visible(clean, street(0).sky, np.random.default_rng(seed))
        assert np.array_equal(image, again)
        hot, _ = degrade_infrared(warm, np.random.default_rng(seed))
        for made, like in ((image, clean), (target, clean), (hot, warm)):
            assert made.dtype == np.float32 and made.shape == like.shape
            assert made.min() >= 0 and made.max() <= 1 and np.isfinite(made).all()


def test_night_target_asks_for_no_more_light_than_the_gain() -> None:
    """Where the dark left 1 / 1000 of the light the target stays dark: blackness is not lifted to fog."""
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
    # Quantisation and noise floor lift the darkest images a little; hence the margin.
    assert all(target <= limit * (image + 0.03) for image, target in darkest)


def test_light_and_colour_obey_physics() -> None:
    grey = np.full((8, 8, 3), 0.5, np.float32)
    quarter = d.low_light(grey, 0.25)
    np.testing.assert_allclose(d.to_linear(quarter), d.to_linear(grey) / 4, rtol=1e-5)
    np.testing.assert_allclose(d.over_exposure(quarter, 2.0), grey, rtol=1e-5)
    assert d.over_exposure(grey, 5).max() == 1
    cast = d.to_linear(d.color_cast(grey, (1.0, 0.5, 0.25)))
    np.testing.assert_allclose(cast[0, 0] / cast[0, 0, 0], (1.0, 0.5, 0.25), rtol=1e-5)


def test_noise_has_the_stated_strength() -> None:
    grey = np.full((200, 200), 0.5, np.float32)
    rng = np.random.default_rng(0)
    assert d.gaussian_noise(grey, 0.05, rng).std() == pytest.approx(0.05, rel=0.03)
    counts = d.to_linear(d.poisson_noise(grey, 1000, rng)) * 1000
    assert counts.var() == pytest.approx(counts.mean(), rel=0.05)
    stripes = d.stripe_noise(grey, 0.02, rng)
    assert stripes.std(0).max() < 1e-5 and stripes.std(1).min() > 0.01


def test_blur_keeps_the_light_and_haze_grows_with_distance() -> None:
    spot = np.zeros((41, 41), np.float32)
    spot[20, 20] = 1
    for blurred in (d.to_linear(d.motion_blur(spot, 7, 0.4)), d.gaussian_blur(spot, 1.5)):
        assert blurred.sum() == pytest.approx(1, rel=0.02)
        assert blurred.max() < 0.5
    hazy = d.haze(np.zeros((100, 50, 3), np.float32), 1.5, 0.8, np.random.default_rng(0))
    assert hazy[:20].mean() > hazy[-20:].mean() + 0.1


def test_real_images_are_found(data_folder: Path) -> None:
    names = set()
    for item in load_shuffled(road_sources(data_folder)):
        names.add(item.name.split("/")[0])
        assert item.visible.dtype == np.uint8 and item.visible.shape[2] == 3
        if item.infrared is not None:
            assert item.infrared.shape == item.visible.shape[:2]
        if names >= {"pair", "camvid", "bsds", "large"}:
            break
    assert names >= {"pair", "camvid", "bsds", "large"}


def test_an_empty_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="roadscene"):
        road_sources(tmp_path)


def test_processes_draw_crops_of_their_own(pack: Path) -> None:
    shapes = (Shape(32, 3, 2),)
    first, second, again = (CropBatches(str(pack), shapes, 5, 0, 1, rank=rank)[0] for rank in (0, 1, 1))
    assert not torch.equal(first.visible, second.visible)
    assert torch.equal(second.visible, again.visible)


def test_recipes_by_name(pack: Path) -> None:
    """None leaves crops as they are; the medical one degrades some and always asks for the clean crop."""
    shapes = (Shape(32, 40, 40),)
    clean, medical, road = (CropBatches(str(pack), shapes, 5, 0, 1, name)[0] for name in ("none", "medical", "road"))
    assert torch.equal(clean.visible, clean.visible_target) and torch.equal(clean.infrared, clean.infrared_target)
    for seen, target in ((medical.visible, medical.visible_target), (medical.infrared, medical.infrared_target)):
        untouched = (seen == target).flatten(1).all(1).float().mean()
        assert 0.2 < untouched < 0.8
        assert (seen - target).abs().mean() < 0.1
        assert seen.min() >= 0 and seen.max() <= 1
    assert torch.equal(medical.visible_target[0], clean.visible_target[0])  # the first crop, before the draws part
    # There is no night in a scanner: the road's images get much darker than the medical ones ever do.
    assert road.visible.mean((1, 2, 3)).min() < 0.5 * medical.visible.mean((1, 2, 3)).min()


def test_rician_noise_is_that_of_a_magnitude() -> None:
    rng = np.random.default_rng(0)
    black = rician_noise(np.zeros((300, 300), np.float32), 0.05, rng)
    assert black.min() >= 0
    assert black.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh
    bright = rician_noise(np.full((300, 300), 0.6, np.float32), 0.05, rng)
    assert bright.std() == pytest.approx(0.05, rel=0.02)


def test_medical_pairs_of_the_shared_data(data_folder: Path) -> None:
    sources = harvard_sources(data_folder / "harvard")
    kinds = {source.name.split("/")[0]: source for source in sources}
    assert set(kinds) == {"ct-mri", "pet-mri", "spect-mri"}
    assert all("/train/a/" in str(source.visible) and "/train/b/" in str(source.infrared) for source in sources)
    pet = kinds["pet-mri"].load()
    assert pet.infrared is not None and pet.sky is None
    assert pet.visible.shape == (256, 256, 3) and pet.infrared.shape == (256, 256)
