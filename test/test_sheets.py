"""Contact sheets and videos of images."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from textdifuse_ros.errors import FileError, ImageError
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

    def test_column_names_row_names_and_title_are_drawn(self) -> None:
        rows = [[_flat(30, 40, (0, 0, 0))]]
        plain = contact_sheet(rows, [""], cell_width=80)
        named = contact_sheet(rows, ["fused"], cell_width=80)
        assert named.shape == plain.shape
        assert (named[:26] != plain[:26]).any() and (named[26:] == plain[26:]).all()
        labeled = contact_sheet(rows, [""], labels=["0.1 s"], cell_width=80)
        assert (labeled[26:50] != plain[26:50]).any()
        assert contact_sheet(rows, [""], title="a drive", cell_width=80).shape[0] > plain.shape[0]

    def test_a_long_name_stays_within_its_column(self) -> None:
        rows = [[_flat(30, 40, (0, 0, 0)), _flat(30, 40, (0, 0, 0))]]
        sheet = contact_sheet(rows, ["a very long name of a column", ""], cell_width=80)
        assert (sheet[:26, 88:] == sheet[0, -1]).all()
        assert (sheet[:26, :88] != sheet[0, -1]).any()

    def test_sizes_may_differ_and_cells_may_be_empty(self) -> None:
        rows = [[_flat(30, 40, (9, 9, 9)), np.full((90, 40, 3), 40_000, np.uint16)], [None, _flat(8, 8, (1, 2, 3))]]
        sheet = contact_sheet(rows, ["a", "b"], cell_width=40)
        assert sheet.shape == (26 + 90 + 4 + 40 + 4, 2 * 44 + 4, 3)
        assert tuple(sheet[26 + 80, 60]) == (156, 156, 156), "16 bits of color are scaled to 8"

    def test_sixteen_bit_infrared_is_stretched(self) -> None:
        thermal = np.tile(np.linspace(7000, 7400, 40).astype(np.uint16), (30, 1))
        image = to_display(thermal)
        assert image.dtype == np.uint8 and image.shape == (30, 40, 3)
        assert image.min() < 10 and image.max() > 245
        sheet = contact_sheet([[thermal]], ["infrared"], cell_width=40)[26:-4, 4:-4]
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
