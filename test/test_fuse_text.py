"""Fusing with a text: what is named changes, and nothing else does, to the byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from textdifuse_ros.cli.main import main
from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.errors import CheckpointError, ImageError
from textdifuse_ros.fusion import emphasis, modulation, regions
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.regions import find_regions
from textdifuse_ros.image.files import read_infrared, read_png_metadata, read_visible, write_png

Pair = tuple[np.ndarray, np.ndarray]
HEIGHT, WIDTH = 75, 110


@pytest.fixture(scope="module")
def config(tiny_text_checkpoint: Path) -> FuserConfig:
    return FuserConfig(model=str(tiny_text_checkpoint), device="cpu", precision="float32", threads=1)


@pytest.fixture(scope="module")
def fuser(config: FuserConfig) -> Fuser:
    return Fuser.from_config(config)


@pytest.fixture(scope="module")
def street() -> Pair:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    infrared = (60 + 40 * np.sin(x / 9) + 90 * ((x - 30) ** 2 + (y - 30) ** 2 < 150)).astype(np.uint8)
    visible = np.stack((x * 2, y * 3, x + y), 2).astype(np.uint8)
    return visible ^ rng.integers(0, 8, visible.shape, dtype=np.uint8), infrared


def objects(strength: float = 1.0) -> np.ndarray:
    """A disc in the middle, and a box that the image cuts off at its lower right corner."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    named = ((x - 30) ** 2 + (y - 30) ** 2 < 150) | ((x > 90) & (y > 60))
    return np.where(named, np.float32(strength), np.float32(0))


def enlarged(pair: Pair) -> Pair:
    """Four times as high and wide."""
    visible, infrared = (np.kron(image, np.ones((4, 4, 1)[: image.ndim], np.uint8)) for image in pair)
    return visible, infrared


def test_objects_of_one_size_are_decoded_together_and_come_out_as_alone(
    fuser: Fuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    visible = rng.integers(0, 256, (160, 480, 3), dtype=np.uint8)
    infrared = rng.integers(0, 256, (160, 480), dtype=np.uint8)
    strengths = np.zeros((160, 480), np.float32)
    for left, strength in ((40, 2.0), (160, 1.0), (280, 1.5), (400, 0.5)):
        strengths[60:80, left : left + 20] = strength
    sizes = []
    merge_sizes = modulation.merge_sizes
    monkeypatch.setattr(
        modulation, "merge_sizes", lambda *given: sizes.append(len(merge_sizes(*given))) or merge_sizes(*given)
    )
    together = fuser.fuse(visible, infrared, steps=4, emphasis=Emphasis(strengths)).image
    assert sizes == [1]
    monkeypatch.setattr(modulation, "merge_sizes", lambda regions, *_: [[region] for region in regions])
    alone = fuser.fuse(visible, infrared, steps=4, emphasis=Emphasis(strengths)).image
    assert np.abs(together.astype(int) - alone).max() <= 1
    plain = fuser.fuse(visible, infrared, steps=4).image
    assert all((alone[60:80, left : left + 20] != plain[60:80, left : left + 20]).any() for left in (40, 160, 280, 400))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm_solver"])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("strength", [-1.0, 1.0, 2.0])
def test_outside_the_mask_the_bytes_are_the_plain_ones(
    fuser: Fuser, street: Pair, sampler: str, steps: int, strength: float
) -> None:
    strengths = objects(strength)
    plain = fuser.fuse(*street, sampler=sampler, steps=steps)
    result = fuser.fuse(*street, sampler=sampler, steps=steps, emphasis=Emphasis(strengths))
    assert plain.mask is None and result.mask is not None
    changed = (result.image != plain.image).any(2)
    assert not changed[strengths == 0].any()
    assert not changed[result.mask == 0].any()
    if strength > 0:  # what would not become fainter is left as it is
        assert changed[strengths != 0].mean() > 0.5
    assert result.mask[30, 30] == result.mask[-1, -1] == 255, "the image's edge is no border of the object"


@pytest.mark.parametrize("steps", [1, 4])
def test_what_is_played_down_never_stands_out_more_nor_the_other_way(fuser: Fuser, street: Pair, steps: int) -> None:
    """The random weights of this fuser would lead away from equality, or past it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = [(x - cx) ** 2 + (y - cy) ** 2 < 90 for cx, cy in ((30, 30), (60, 40), (85, 20), (20, 60))]
    objects = sum((np.uint16(n) * mask for n, mask in enumerate(masks, 1)), np.zeros((HEIGHT, WIDTH), np.uint16))
    contrasts = []
    for strength in (0.0, -0.25, -0.5, -1.0):
        strengths = np.where(objects > 0, np.float32(strength), np.float32(0))
        grey = fuser.fuse(*street, steps=steps, emphasis=Emphasis(strengths, objects=objects)).image.mean(2)
        rings = [emphasis.surroundings(mask, objects > 0) for mask in masks]
        contrasts.append([grey[mask].mean() - grey[ring].mean() for mask, ring in zip(masks, rings, strict=True)])
    plain, *faint = np.array(contrasts)
    assert (np.abs(plain) > 1.5).any()
    for signed in faint:
        assert (np.sign(plain) * signed > -1.0).all()
        assert (np.abs(signed) < np.abs(plain) + 1.0).all()
    if steps == 4:  # in one step all of these lead away, and are left as they are
        assert (np.abs(faint[-1]) < np.abs(plain) - 0.5).any()


def test_a_neighbor_does_not_jump_when_the_strength_of_another_leaves_nothing(fuser: Fuser, street: Pair) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    near = (x >= 20) & (x < 43) & (y >= 20) & (y < 50)
    other = (x >= 43) & (x < 64) & (y >= 20) & (y < 50)
    images = []
    for strength in (0.0, 1e-3):
        strengths = np.where(near, np.float32(1), np.where(other, np.float32(strength), np.float32(0)))
        images.append(fuser.fuse(*street, steps=1, emphasis=Emphasis(strengths)).image.astype(int))
    inner = near & (x < 40)  # nearer to the other there is a border, or is none
    assert np.abs(images[1] - images[0])[inner].max() <= 3
    plain = fuser.fuse(*street, steps=1).image
    assert np.abs(images[0] - plain)[inner].max() > 10


def test_a_strength_of_nothing_changes_nothing(fuser: Fuser, street: Pair) -> None:
    plain = fuser.fuse(*street).image
    for strengths in (objects(0.0), np.zeros((HEIGHT, WIDTH), np.float32)):
        result = fuser.fuse(*street, emphasis=Emphasis(strengths))
        assert np.array_equal(result.image, plain)
        assert result.mask is not None and not result.mask.any()


def test_little_strength_changes_little_and_it_grows_without_jumps(fuser: Fuser, street: Pair) -> None:
    plain = fuser.fuse(*street).image.astype(int)
    images = [
        fuser.fuse(*street, emphasis=Emphasis(objects(s))).image.astype(int) for s in (-0.02, 0.02, 0.5, 0.52, 1.0)
    ]
    near_zero, far = np.abs(images[1] - plain), np.abs(images[4] - plain)
    assert np.abs(images[0] - plain).max() < 0.3 * far.max()
    assert near_zero.max() < 0.3 * far.max() and near_zero.mean() < 0.1 * far.mean()
    assert np.abs(images[3] - images[2]).max() < 0.3 * far.max()


def test_the_result_does_not_hang_on_what_was_fused_before(config: FuserConfig, fuser: Fuser, street: Pair) -> None:
    asked = Emphasis(objects())
    first = fuser.fuse(*street, emphasis=asked).image
    fuser.fuse(street[0][::-1].copy(), street[1], emphasis=Emphasis(objects(-1.0)))
    assert np.array_equal(first, fuser.fuse(*street, emphasis=asked).image)
    assert np.array_equal(first, Fuser.from_config(config).fuse(*street, emphasis=asked).image)


def test_objects_far_apart_do_not_change_one_another(fuser: Fuser) -> None:
    rng = np.random.default_rng(0)
    pair = rng.integers(0, 256, (64, 400, 3), dtype=np.uint8), rng.integers(0, 256, (64, 400), dtype=np.uint8)
    left = np.zeros((64, 400), np.float32)
    left[20:40, 10:30] = 1
    both = left.copy()
    both[10:50, 370:390] = -1
    assert len(find_regions(both[:, :400])) == 2
    alone, together = (fuser.fuse(*pair, emphasis=Emphasis(item)).image.astype(int) for item in (left, both))
    # The context's widest mean is over the image: it weighs a hundredth.
    assert np.abs(alone[:, :200] - together[:, :200]).max() <= 2


@pytest.mark.parametrize("place", [0, 3, 8, 13])
def test_decoding_regions_is_nearly_decoding_the_image(
    fuser: Fuser, street: Pair, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Emphasis(np.roll(objects(), (-place, -place), (0, 1)))
    parts = fuser.fuse(*street, emphasis=asked).image.astype(int)
    changed = np.abs(parts - fuser.fuse(*street).image)
    monkeypatch.setattr(regions, "MARGIN", 1000)
    whole = fuser.fuse(*street, emphasis=asked).image.astype(int)
    assert np.abs(parts - whole).mean() < changed.mean() / 12


def test_with_noise_in_between_the_part_far_from_the_corner_sees_its_own(fuser: Fuser, street: Pair) -> None:
    """The modulated process has the plain one's noise there: an emphasis of nearly 0 changes nearly nothing."""
    pair = enlarged(street)
    height, width = pair[1].shape
    strengths = np.zeros((height, width), np.float32)
    strengths[height - 60 : height - 20, width - 80 : width - 30] = 1e-6
    plain = fuser.fuse(*pair, steps=4, sampler="ancestral").image.astype(int)
    found = fuser.fuse(*pair, steps=4, sampler="ancestral", emphasis=Emphasis(strengths)).image
    assert np.abs(found - plain).max() <= 2


def test_objects_for_which_the_whole_image_is_decoded_stand_out(
    fuser: Fuser, street: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where parts would be more than the image; the objects lie far from its corner."""
    pair = enlarged(street)
    height, width = pair[1].shape
    strengths = np.zeros((height, width), np.float32)
    strengths[60:140, 90:200] = 1
    strengths[150:170, 90:200] = -1
    parts = fuser.fuse(*pair, emphasis=Emphasis(strengths)).image.astype(int)
    monkeypatch.setattr(modulation, "find_regions", lambda _: regions.full_frame_region(320, 448)[0])
    plain, found = fuser.fuse(*pair).image.astype(int), fuser.fuse(*pair, emphasis=Emphasis(strengths)).image
    assert np.array_equal(found[strengths == 0], plain[strengths == 0])
    for value in (-1, 1):
        inside = strengths == value
        changed = np.abs(parts[inside] - plain[inside]).mean()
        assert changed > 0 and np.abs(found[inside] - parts[inside]).mean() < changed / 4


def test_the_chroma_stays(fuser: Fuser, street: Pair) -> None:
    plain = fuser.fuse(*street).image.astype(int)
    image = fuser.fuse(*street, emphasis=Emphasis(objects(0.3))).image.astype(int)
    free = ((image > 0) & (image < 255) & (plain > 0) & (plain < 255)).all(2)
    difference = (image - plain)[free]
    assert np.abs(difference).max() > 3
    assert np.ptp(difference, axis=1).max() <= 1, "all channels move by the luma alone"


def test_the_provenance_says_what_was_asked_for(fuser: Fuser, street: Pair) -> None:
    made_by = fuser.fuse(*street, emphasis=Emphasis(objects(), "person", 1.0, "fixed")).provenance
    assert (made_by["text"], made_by["strength"], made_by["localizer"]) == ("person", 1.0, "fixed")
    assert "text" not in fuser.fuse(*street).provenance


def test_a_model_without_re_modulation_fuses_and_refuses_objects(tiny_checkpoint: Path, street: Pair) -> None:
    fuser = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), device="cpu", precision="float32"))
    nothing = Emphasis(objects(0.0), "person")
    assert np.array_equal(fuser.fuse(*street, emphasis=nothing).image, fuser.fuse(*street).image)
    with pytest.raises(CheckpointError, match=r"tiny must be one with a text re-modulation.*train modulation"):
        fuser.fuse(*street, emphasis=Emphasis(objects()))


def test_strengths_of_another_kind_are_refused(fuser: Fuser, street: Pair) -> None:
    with pytest.raises(ImageError, match=r"110 x 75 pixels.*got 64 x 32"):
        fuser.fuse(*street, emphasis=Emphasis(np.ones((32, 64), np.float32)))
    for wrong in (objects().astype(np.float64), objects()[None], objects(2.5), objects(-1.5), objects(np.nan)):
        with pytest.raises(ImageError, match="strengths"):
            Emphasis(wrong)
    for strange in (np.zeros((75, 110), np.int32), np.zeros((75, 64), np.uint16)):
        with pytest.raises(ImageError, match="objects"):
            Emphasis(objects(), objects=strange)


def test_bfloat16_keeps_the_promise(config: FuserConfig, street: Pair) -> None:
    fuser = Fuser.from_config(replace(config, precision="bfloat16"))
    changed = (fuser.fuse(*street, emphasis=Emphasis(objects())).image != fuser.fuse(*street).image).any(2)
    assert changed.any() and not changed[objects() == 0].any()


class TestCommandLine:
    BOX = (20, 18, 44, 42)

    @pytest.fixture
    def folders(self, tmp_path: Path, street: Pair) -> Path:
        write_png(tmp_path / "vis" / "a.png", street[0])
        write_png(tmp_path / "ir" / "a.png", street[1])
        return tmp_path

    @pytest.fixture
    def fuse(self, folders: Path, tiny_text_checkpoint: Path, capfd: pytest.CaptureFixture[str]):
        def run(name: str, *flags: object, model: Path = tiny_text_checkpoint) -> tuple[int, str]:
            line = ["fuse", folders / "vis", folders / "ir", "-o", folders / name, "--model", model, "--threads", 1]
            status = main([str(part) for part in (*line, *flags)])
            return status, capfd.readouterr().err

        return run

    def fixed(self, *flags: object) -> tuple[object, ...]:
        regions = "person " + " ".join(map(str, self.BOX))
        return ("--localizer", "fixed", "--regions", regions, *flags)

    def test_the_text_changes_its_objects_and_the_mask_tells_where(self, fuse, folders: Path) -> None:
        assert fuse("plain")[0] == 0
        assert fuse("text", *self.fixed("--text", "the person", "--strength", 0.5, "--save-mask"))[0] == 0
        plain, image = (read_visible(folders / name / "a.png") for name in ("plain", "text"))
        mask = read_infrared(folders / "text" / "a_mask.png")
        left, top, right, bottom = self.BOX
        inside = np.zeros(mask.shape, bool)
        inside[top:bottom, left:right] = True
        assert mask.dtype == np.uint8 and np.array_equal(mask > 0, inside)
        changed = (image != plain).any(2)
        assert changed[inside].mean() > 0.5 and not changed[~inside].any()
        made_by = json.loads(read_png_metadata(folders / "text" / "a.png")["textdifuse"])
        assert (made_by["text"], made_by["strength"], made_by["localizer"]) == ("the person", 0.5, "fixed")

    def test_what_is_not_there_leaves_the_plain_image(self, fuse, folders: Path) -> None:
        fuse("plain")
        for name, text in (("none", "bicycle"), ("empty", "")):
            assert fuse(name, *self.fixed("--text", text, "--save-mask"))[0] == 0
            images = [read_visible(folders / folder / "a.png") for folder in ("plain", name)]
            assert np.array_equal(*images)
            assert not read_infrared(folders / name / "a_mask.png").any()

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--regions", "", "--text", "person"), "regions must be given"),
            (("--regions", "person 1 1 9 9", "--text", "person", "--strength", 2.5), "--strength must be"),
            (("--regions", "person 1 1 9 9", "--text", "person:9"), "--text"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_written(
        self, fuse, folders: Path, flags: tuple[object, ...], said: str
    ) -> None:
        status, error = fuse("out", "--localizer", "fixed", *flags)
        assert status == 2 and said in error and not (folders / "out").exists()

    def test_a_model_without_re_modulation_is_refused_first(self, fuse, folders: Path, tiny_checkpoint: Path) -> None:
        status, error = fuse("out", *self.fixed("--text", "person"), model=tiny_checkpoint)
        assert status == 2 and "text re-modulation" in error and not (folders / "out").exists()

    def test_a_mask_never_overwrites_an_image(self, fuse, folders: Path, street: Pair) -> None:
        write_png(folders / "vis" / "a_mask.png", street[0])
        write_png(folders / "ir" / "a_mask.png", street[1])
        status, error = fuse("out", *self.fixed("--text", "person", "--save-mask"))
        assert status == 2 and "a and a_mask" in error
        assert fuse("out", *self.fixed("--text", "person"))[0] == 0

    def test_the_evaluator_runs_the_model_with_and_without_its_objects(
        self, folders: Path, tiny_text_checkpoint: Path, tiny_checkpoint: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (folders / "boxes").mkdir()
        (folders / "boxes" / "a.txt").write_text("person " + " ".join(map(str, self.BOX)) + "\n")
        line = ["evaluate", "--visible", folders / "vis", "--infrared", folders / "ir", "--panel", "text", "--jobs", 1]
        line += ["--boxes", folders / "boxes", "--threads", 1, "--json", folders / "out.json"]
        assert main([str(part) for part in (*line, "--model", tiny_text_checkpoint)]) == 0
        row = json.loads((folders / "out.json").read_text())["rows"]["textdifuse"]
        assert row["contrast"]["mean"] != row["contrast_plain"]["mean"]
        assert row["gain"]["mean"] == pytest.approx(row["contrast"]["mean"] / row["contrast_plain"]["mean"] - 1)
        assert row["changed_outside"]["mean"] == row["largest_outside"]["mean"] == 0
        assert main([str(part) for part in (*line, "--model", tiny_text_checkpoint, "--strength", 0)]) == 0
        row = json.loads((folders / "out.json").read_text())["rows"]["textdifuse"]
        assert row["gain"]["mean"] == 0
        assert main([str(part) for part in (*line, "--model", tiny_checkpoint)]) == 2
        assert "text re-modulation" in capfd.readouterr().err
