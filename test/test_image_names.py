"""Names of images: Unicode forms, exchanged folders, and the output of one pair."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from textdifuse_ros.cli.main import main
from textdifuse_ros.cli.outputs import output_of_one
from textdifuse_ros.data.pairs import pair_sources
from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate.detection import Judge
from textdifuse_ros.evaluate.highlight import Objects
from textdifuse_ros.evaluate.methods import Row, result_path
from textdifuse_ros.evaluate.pair_sources import read_pairs
from textdifuse_ros.evaluate.sets import folder_set
from textdifuse_ros.image.files import find_image, find_pairs, read_visible, write_png
from textdifuse_ros.image.swapped import swap_warning
from textdifuse_ros.nodes.sources import FolderSource

NAMES = ["Zürich_01", "한국", "Ångström", "ἀρχή", "がぎぐ", "điện"]
RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (24, 32), dtype=np.uint8)


def folders(root, visible_form, infrared_form, visible=COLOR, infrared=GREY):
    """Folders ``vis`` and ``ir`` with an image for each of :data:`NAMES`."""
    for folder, form, image in (("vis", visible_form, visible), ("ir", infrared_form, infrared)):
        for name in NAMES:
            write_png(root / folder / f"{unicodedata.normalize(form, name)}.png", image)
    return root / "vis", root / "ir"


@pytest.mark.parametrize("visible_form", ["NFC", "NFD"])
@pytest.mark.parametrize("infrared_form", ["NFC", "NFD"])
class TestUnicodeForms:
    def test_two_folders_are_paired(self, tmp_path, visible_form, infrared_form):
        visible, infrared = folders(tmp_path, visible_form, infrared_form)
        listing = find_pairs(visible, infrared)
        assert len(listing) == len(NAMES) and not listing.visible_only and not listing.infrared_only
        for pair in listing:
            assert pair.stem == pair.visible.stem
            assert pair.visible.is_file() and pair.infrared.is_file()
            assert unicodedata.normalize("NFC", pair.visible.name) == unicodedata.normalize("NFC", pair.infrared.name)

    def test_evaluate_calibrate_train_and_the_player_pair_them(self, tmp_path, visible_form, infrared_form):
        visible, infrared = folders(tmp_path, visible_form, infrared_form)
        assert len(folder_set(visible, infrared).pairs) == len(NAMES)
        assert len(read_pairs(visible, infrared, 0)) == len(NAMES)
        assert len(pair_sources(visible, infrared)) == len(NAMES)
        assert FolderSource(tmp_path, 1.0, print).lap_ns == len(NAMES) * 10**9

    def test_results_are_found(self, tmp_path, visible_form, infrared_form):
        results, _ = folders(tmp_path, visible_form, "NFC")
        for name in NAMES:
            stem = unicodedata.normalize(infrared_form, name)
            assert result_path(Row("method", results), stem).is_file()
            assert find_image(results, stem) == result_path(Row("method", results), stem)

    def test_labeled_objects_are_found(self, tmp_path, visible_form, infrared_form):
        for name in NAMES:
            (tmp_path / f"{unicodedata.normalize(visible_form, name)}.txt").write_text("person 2 3 10 12\n")
        for name in NAMES:
            stem = unicodedata.normalize(infrared_form, name)
            assert Objects(tmp_path, masks=False).read(stem, COLOR).shape == (1, 24, 32)
            assert list(Judge(tmp_path, tmp_path, "person").truths(stem)) == ["person"]


def test_two_images_of_one_folder_that_differ_in_form_only_clash(tmp_path):
    visible, infrared = folders(tmp_path, "NFC", "NFC")
    write_png(visible / f"{unicodedata.normalize('NFD', NAMES[0])}.png", COLOR)
    with pytest.raises(FileError, match=r"in two Unicode forms \('Zu\\u0308rich_01.png' and 'Z\\xfcrich_01.png'\)"):
        find_pairs(visible, infrared)


def test_fuse_and_locate_pair_them(tmp_path, tiny_checkpoint, capsys):
    visible, infrared = folders(tmp_path, "NFC", "NFD")
    arguments = [str(visible), str(infrared), "-o", str(tmp_path / "out")]
    assert main(["fuse", *arguments, "--model", str(tiny_checkpoint), "--steps", "1"]) == 0
    fixed = ["--localizer", "fixed", "--regions", "4 4 9 9"]
    assert main(["locate", *arguments, "--text", "person", *fixed]) == 0
    assert "unmatched" not in capsys.readouterr().err
    for name in NAMES:
        assert (tmp_path / "out" / f"{name}.png").is_file()
        assert (tmp_path / "out" / f"{name}_labels.png").is_file()


class TestExchangedFolders:
    def warning(self, visible, infrared):
        return swap_warning(visible, infrared, find_pairs(visible, infrared))

    def test_color_tells(self, tmp_path):
        visible, infrared = folders(tmp_path, "NFC", "NFC")
        assert self.warning(visible, infrared) == ""
        for name in ("one", "other"):
            (tmp_path / name).symlink_to({"one": infrared, "other": visible}[name])
        assert "have color" in self.warning(tmp_path / "one", tmp_path / "other")
        pair = (next(infrared.iterdir()), next(visible.iterdir()))
        assert "have color" in self.warning(*pair)

    @pytest.mark.parametrize("scale", [1, 257])
    @pytest.mark.parametrize("repeated", [False, True])
    def test_a_monochrome_visible_camera_is_no_exchange_but_color_infrared_is(self, tmp_path, scale, repeated):
        grey = GREY.astype(np.uint16) * scale if scale > 1 else GREY
        grey = np.stack([grey] * 3, 2) if repeated else grey
        (tmp_path / "a").mkdir()
        visible, infrared = folders(tmp_path / "a", "NFC", "NFC", grey, grey)
        assert self.warning(visible, infrared) == ""
        visible, infrared = folders(tmp_path / "b", "NFC", "NFC", grey, COLOR)
        assert "have color" in self.warning(visible, infrared)

    @pytest.mark.parametrize(("one", "other"), [("ir", "vis"), ("cam_thermal", "cam-RGB"), ("Infrared", "Visible")])
    def test_names_tell_where_color_does_not(self, tmp_path, one, other):
        for name in (one, other):
            write_png(tmp_path / name / "1.png", GREY)
        assert "names say" in self.warning(tmp_path / one, tmp_path / other)
        assert self.warning(tmp_path / other, tmp_path / one) == ""
        write_png(tmp_path / one / "1.png", COLOR)
        assert self.warning(tmp_path / one, tmp_path / other) == "", "color is the better witness"

    def test_fuse_and_locate_warn_and_go_on(self, tmp_path, tiny_checkpoint, capsys):
        visible, infrared = folders(tmp_path, "NFC", "NFC")
        arguments = [str(infrared), str(visible), "-o", str(tmp_path / "out")]
        assert main(["fuse", *arguments, "--model", str(tiny_checkpoint), "--steps", "1"]) == 0
        assert "exchanged?" in capsys.readouterr().err
        assert main(["locate", *arguments, "--text", "person", "--localizer", "fixed", "--regions", "4 4 9 9"]) == 0
        assert "exchanged?" in capsys.readouterr().err

    def test_calibrate_train_and_the_player_warn(self, tmp_path, capsys):
        folders(tmp_path, "NFC", "NFC", GREY, COLOR)
        lines = []
        read_pairs(tmp_path / "vis", tmp_path / "ir", 0, report=lines.append)
        FolderSource(tmp_path, 1.0, lines.append)
        assert len(lines) == 2 and all("exchanged?" in line for line in lines)
        images = ["--pairs", str(tmp_path / "vis"), str(tmp_path / "ir"), "-o", str(tmp_path / "images.pack")]
        assert main(["train", "pack", *images]) == 0
        assert "exchanged?" in capsys.readouterr().err


class TestOutputOfOnePair:
    def fuse(self, tmp_path, checkpoint, output, *flags, visible="vis", infrared="ir"):
        arguments = ["fuse", tmp_path / visible, tmp_path / infrared, "-o", output, "--model", checkpoint, "--steps", 1]
        return main([str(argument) for argument in (*arguments, *flags)])

    @pytest.fixture
    def one(self, tmp_path):
        """The folders ``vis`` and ``ir`` with a single pair, ``1.png``."""
        write_png(tmp_path / "vis" / "1.png", COLOR)
        write_png(tmp_path / "ir" / "1.png", GREY)
        return tmp_path

    @pytest.mark.parametrize("names", [("vis/1.png", "ir/1.png"), ("vis", "ir")])
    def test_a_png_is_written_as_that_file(self, one, tiny_checkpoint, names, capsys):
        given = {"visible": names[0], "infrared": names[1]}
        assert self.fuse(one, tiny_checkpoint, one / "new" / "x.png", "--save-mask", **given) == 0
        assert sorted(path.name for path in (one / "new").iterdir()) == ["x.png", "x_mask.png"]
        assert "x.png" in capsys.readouterr().out
        assert self.fuse(one, tiny_checkpoint, one / "folder", **given) == 0
        same = (read_visible(path) for path in (one / "new" / "x.png", one / "folder" / "1.png"))
        assert np.array_equal(*same)
        assert self.fuse(one, tiny_checkpoint, one / "new" / "x.png", **given) == 0, "an existing file is replaced"

    def test_an_input_is_not_overwritten(self, one, tiny_checkpoint, capsys):
        before = (one / "vis" / "1.png").read_bytes()
        given = {"visible": "vis/1.png", "infrared": "ir/1.png"}
        assert self.fuse(one, tiny_checkpoint, one / "vis" / "1.png", **given) == 2
        assert "where no input image is overwritten" in capsys.readouterr().err
        assert (one / "vis" / "1.png").read_bytes() == before

    def test_a_folder_of_that_name_is_a_folder(self, one, tiny_checkpoint):
        (one / "x.png").mkdir()
        assert self.fuse(one, tiny_checkpoint, one / "x.png") == 0
        assert [path.name for path in (one / "x.png").iterdir()] == ["1.png"]

    @pytest.mark.parametrize("name", ["x.jpg", "x.tiff", "x.PNG"])
    def test_other_formats_are_refused(self, one, tiny_checkpoint, capsys, name):
        assert self.fuse(one, tiny_checkpoint, one / name) == 2
        assert "a folder, or a file that ends in .png" in capsys.readouterr().err
        assert not (one / name).exists()

    def test_a_file_for_several_pairs_is_refused(self, tmp_path):
        listing = find_pairs(*folders(tmp_path, "NFC", "NFC"))
        with pytest.raises(FileError, match=r"must be a folder, got the name of an image file for 6 pairs"):
            output_of_one(tmp_path / "x.png", listing)
        assert output_of_one(tmp_path / "x", listing) == (tmp_path / "x", listing)
