"""Contact sheets and videos of images."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from textdifuse_ros.errors import FileError, ImageError
from textdifuse_ros.image.labels import PLATE, LabelLayout, text_width, wrap_text
from textdifuse_ros.image.sheets import contact_sheet, to_display
from textdifuse_ros.image.video import write_video


def _flat(height: int, width: int, color: tuple[int, int, int]) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


class TestContactSheet:
    def test_images_are_placed_in_their_rows_and_columns(self) -> None:
        rows = [
            [_flat(30, 40, (200, 0, 0)), _flat(30, 40, (0, 200, 0))],
            [_flat(30, 40, (0, 0, 200)), np.full((30, 40), 90, np.uint8)],
        ]
        sheet = contact_sheet(rows, ["visible", "infrared"], cell_width=80)
        assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
        height = sheet.shape[0]
        assert tuple(sheet[height - 94, 44]) == (200, 0, 0)
        assert tuple(sheet[height - 94, 128]) == (0, 200, 0)
        assert tuple(sheet[height - 30, 44]) == (0, 0, 200)
        assert tuple(sheet[height - 30, 128]) == (90, 90, 90)

    def test_column_names_row_names_and_title_are_drawn_beside_the_images(self) -> None:
        rows = [[_flat(30, 40, (0, 200, 0))]]

        def inked(*, labels: tuple[str, ...] = (), title: str = "", name: str = "") -> int:
            sheet = contact_sheet(rows, [name], labels=labels, title=title, cell_width=80).astype(int)
            assert ((sheet == (0, 200, 0)).all(-1)).sum() == 60 * 80, "nothing is drawn on the image"
            return int((sheet.min(-1) > 128).sum())

        assert inked() == 0
        assert inked(name="fused") > 0 and inked(labels=("0.1 s",)) > 0 and inked(title="a drive") > 0

    @pytest.mark.parametrize("count", [1, 4])
    def test_letters_are_at_least_a_fortieth_of_the_sheet(self, count: int) -> None:
        rows = [[np.full((360, 480), 90, np.uint8)] * 4] * count
        sheet = contact_sheet(rows, ["I", "", "", ""], labels=["I"] * count)
        inked = np.flatnonzero((sheet[:, :420] > 120).all(-1).any(1))
        letters = np.split(inked, np.flatnonzero(np.diff(inked) > 1) + 1)
        assert len(letters) == count + 1, "a name, and a label for each row"
        assert all(len(rows) >= 0.025 * len(sheet) - 2 for rows in letters)  # but for the faint border of a stroke

    def test_a_long_name_is_wrapped_within_its_column(self) -> None:
        rows = [[_flat(30, 40, (0, 0, 0)), _flat(30, 40, (0, 0, 0))]]
        sheet = contact_sheet(rows, ["a very long name of a column", ""], cell_width=80)
        header = sheet[: -30 * 2 - 4]
        assert (header[:, 88:] == sheet[0, -1]).all()
        assert (header[:, :88] > 128).any()
        assert len(header) > len(contact_sheet(rows, ["a", ""], cell_width=80)[: -30 * 2 - 4]) + 16

    def test_sizes_may_differ_and_cells_may_be_empty(self) -> None:
        rows = [[_flat(30, 40, (9, 9, 9)), np.full((90, 40, 3), 40_000, np.uint16)], [None, _flat(8, 8, (1, 2, 3))]]
        sheet = contact_sheet(rows, ["a", "b"], cell_width=40)
        top = len(sheet) - (90 + 4 + 40 + 4)
        assert top > 0 and sheet.shape[1:] == (2 * 44 + 4, 3)
        assert tuple(sheet[top + 80, 60]) == (156, 156, 156), "16 bits of color are scaled to 8"

    def test_sixteen_bit_infrared_is_stretched(self) -> None:
        thermal = np.tile(np.linspace(7000, 7400, 40).astype(np.uint16), (30, 1))
        image = to_display(thermal)
        assert image.dtype == np.uint8 and image.shape == (30, 40, 3)
        assert image.min() < 10 and image.max() > 245
        sheet = contact_sheet([[thermal]], ["infrared"], cell_width=40)[-34:-4, 4:-4]
        assert sheet.min() < 10 and sheet.max() > 245

    @pytest.mark.parametrize(
        ("rows", "columns", "labels", "message"),
        [
            ([], ["a"], (), "at least one row"),
            ([[np.zeros((8, 8), np.uint8)]], ["a", "b"], (), "row 0 of a contact sheet must be 2 images long, got 1"),
            ([[np.zeros((8, 8), np.uint8)]], ["a"], ("x", "y"), "as many as its rows"),
            ([[np.zeros((8, 8), np.float32)]], ["a"], (), "got float32"),
        ],
    )
    def test_an_invalid_table_is_rejected(
        self, rows: list[list[np.ndarray]], columns: list[str], labels: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(ImageError, match=message):
            contact_sheet(rows, columns, labels=labels)


class TestLabels:
    @pytest.mark.parametrize("ground", [0, 128, 255])
    @pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (1440, 1080)])
    def test_letters_are_at_least_a_fortieth_of_the_image_on_any_ground(
        self, ground: int, shape: tuple[int, int]
    ) -> None:
        image = np.full((*shape, 3), ground, np.uint8)
        assert LabelLayout(image).draw("I", (100, 200, 150, 300), (240, 228, 66))
        rows = np.flatnonzero((np.abs(image.astype(int) - (240, 228, 66)).max(-1) < 90).any(1))
        assert rows[-1] - rows[0] + 1 >= 0.025 * shape[0] - 1
        rows, columns = np.nonzero((image != ground).any(-1))
        plate = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (plate[0] == PLATE).all() and (plate[:, 0] == PLATE).all(), "a plate around the text"

    def test_labels_of_objects_at_one_place_do_not_overlap(self) -> None:
        image = np.full((480, 640, 3), 128, np.uint8)
        layout = LabelLayout(image)
        sizes = []
        for _ in range(12):
            before = image.copy()
            assert layout.draw("person 0.90", (300, 200, 340, 280), (230, 159, 0))
            changed = (image != before).any(-1)
            assert (before[changed] == 128).all(), "drawn on free ground"
            sizes.append(int(changed.sum()))
        assert len(set(sizes)) == 1, "each is complete"

    def test_what_finds_no_place_is_left_out(self) -> None:
        image = np.full((60, 120, 3), 128, np.uint8)
        layout = LabelLayout(image)
        drawn = [layout.draw("person 0.90", (10, 10, 50, 50), (230, 159, 0)) for _ in range(9)]
        assert drawn[0] and not drawn[-1]

    @pytest.mark.parametrize("box", [(-50, -50, 10, 10), (630, 470, 700, 500), (0, 0, 640, 480)])
    def test_a_label_of_an_object_at_the_border_is_within_the_image(self, box: tuple[int, ...]) -> None:
        image, inside = (np.full((480, 640, 3), 128, np.uint8) for _ in range(2))
        assert LabelLayout(image).draw("person", box, (230, 159, 0))
        assert LabelLayout(inside).draw("person", (300, 200, 340, 280), (230, 159, 0))
        assert (image != 128).sum() == (inside != 128).sum(), "all of it"

    def test_a_text_wider_than_the_image_is_cut_and_other_scripts_are_escaped(self) -> None:
        image = np.full((480, 640, 3), 128, np.uint8)
        layout = LabelLayout(image)
        assert layout.draw("a very long phrase " * 20, (0, 100, 10, 110), (230, 159, 0))
        assert layout.draw("\u884c\u4eba \udcff", (0, 300, 10, 310), (230, 159, 0))

    def test_text_is_wrapped_at_blanks_and_marks_first(self) -> None:
        room = text_width("clahe+max+", 12)
        assert wrap_text("clean visible", 12, text_width("visible", 12)) == ["clean", "visible"]
        assert wrap_text("clahe+max+pre", 12, room) == ["clahe+max+", "pre"]
        assert wrap_text("short", 12, room) == ["short"]
        parts = wrap_text("x" * 60, 12, room)
        assert "".join(parts) == "x" * 60 and all(text_width(part, 12) <= room for part in parts)
        assert wrap_text("", 12, room) == [""]


class TestVideo:
    @pytest.mark.parametrize("size", [(48, 64), (49, 65)])
    def test_frames_are_read_back_in_order_and_color(self, tmp_path: Path, size: tuple[int, int]) -> None:
        colors = [(200, 20, 20), (20, 200, 20), (20, 20, 200), (128, 128, 128)]
        path = tmp_path / "new" / "drive.mp4"
        assert write_video(path, (_flat(*size, color) for color in colors), 10.0) == 4
        video = cv2.VideoCapture(str(path))
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10.0)
        for color in colors:
            read, frame = video.read()
            assert read
            assert frame.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
            np.testing.assert_allclose(frame[..., ::-1].mean((0, 1)), color, atol=12)
        assert not video.read()[0]

    def test_it_is_what_every_browser_plays(self, tmp_path: Path) -> None:
        """H.264 with 4:2:0 sampling, and the index before the images, so that it starts before all of it is loaded."""
        path = tmp_path / "drive.mp4"
        write_video(path, [_flat(48, 64, (9, 9, 9))] * 3, 10.0)
        with av.open(str(path)) as container:
            (stream,) = container.streams.video
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == 10 and stream.frames == 3
        content = path.read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")

    def test_a_video_without_frames_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="at least one frame"):
            write_video(tmp_path / "drive.mp4", [], 10.0)
        assert not (tmp_path / "drive.mp4").exists()

    def test_a_frame_of_another_size_is_rejected(self, tmp_path: Path) -> None:
        frames = [_flat(48, 64, (0, 0, 0)), _flat(48, 60, (0, 0, 0))]
        with pytest.raises(ImageError, match="as large as the first"):
            write_video(tmp_path / "drive.mp4", frames, 10.0)

    def test_a_frame_that_is_not_rgb_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="got uint16"):
            write_video(tmp_path / "drive.mp4", [np.zeros((48, 64, 3), np.uint16)], 10.0)

    def test_a_path_that_cannot_be_written_is_rejected(self, tmp_path: Path) -> None:
        (tmp_path / "drive.mp4").mkdir()
        with pytest.raises(FileError, match=r"(?i)a file that can be written, got is a directory"):
            write_video(tmp_path / "drive.mp4", [_flat(48, 64, (0, 0, 0))], 10.0)
        with pytest.raises(FileError, match="named"):
            write_video(tmp_path / "drive.avi", [_flat(48, 64, (0, 0, 0))], 10.0)
        (tmp_path / "file").write_text("")
        with pytest.raises(FileError, match="a folder that can be created"):
            write_video(tmp_path / "file" / "drive.mp4", [_flat(48, 64, (0, 0, 0))], 10.0)

    def test_a_frame_rate_of_zero_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="above 0"):
            write_video(tmp_path / "drive.mp4", [_flat(48, 64, (0, 0, 0))], 0.0)
