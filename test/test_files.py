"""Reading and writing image files, and pairing of folders."""

from __future__ import annotations

import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from textdifuse_ros.errors import FileError, ImageError
from textdifuse_ros.image.files import (
    Pair,
    find_pairs,
    read_infrared,
    read_png_metadata,
    read_visible,
    write_atomic,
    write_png,
)

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (40, 50), dtype=np.uint8)


def store(path, image, *options):
    """Write an image (RGB if it has three channels) with OpenCV."""
    stored = image[..., [2, 1, 0, *range(3, image.shape[2])]] if image.ndim == 3 else image
    assert cv2.imwrite(str(path), stored, list(options))
    return path


def wide(image):
    return image.astype(np.uint16) * 257 - (image > 3) * np.uint16(3)


def test_opencv_4_6_without_a_logging_module_reads_images(tmp_path, monkeypatch):
    """The version of Debian 12 and Ubuntu 24.04; the log level is restored."""
    level = [3]

    def set_level(new):
        level.append(new)
        return level[-2]

    monkeypatch.delattr(cv2.utils, "logging", raising=False)
    monkeypatch.setattr(cv2, "setLogLevel", set_level, raising=False)
    assert np.array_equal(read_visible(store(tmp_path / "a.png", COLOR)), COLOR)
    assert level == [3, 0, 3]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
def test_lossless_8_bit_files_are_read_exactly(tmp_path, suffix):
    assert np.array_equal(read_visible(store(tmp_path / f"a{suffix}", COLOR)), COLOR)
    assert np.array_equal(read_infrared(store(tmp_path / f"b{suffix}", GREY)), GREY)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_values_are_preserved(tmp_path, suffix):
    visible = read_visible(store(tmp_path / f"a{suffix}", wide(COLOR)))
    infrared = read_infrared(store(tmp_path / f"b{suffix}", wide(GREY)))
    assert visible.dtype == infrared.dtype == np.uint16
    assert np.array_equal(visible, wide(COLOR)) and np.array_equal(infrared, wide(GREY))


def test_jpeg_keeps_the_channel_order(tmp_path):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    image = read_visible(store(tmp_path / "a.jpg", red))
    assert image[8, 8, 0] > 190 and image[8, 8, 1:].max() < 10


def test_a_grey_visible_file_is_repeated_to_three_channels(tmp_path):
    for image in (GREY, wide(GREY)):
        visible = read_visible(store(tmp_path / "a.png", image))
        assert np.array_equal(visible, np.stack([image] * 3, axis=2))


def test_a_color_infrared_file_is_reduced_to_luma(tmp_path):
    luma = COLOR @ [0.299, 0.587, 0.114]
    infrared = read_infrared(store(tmp_path / "a.png", COLOR))
    assert infrared.ndim == 2 and np.abs(infrared - luma).max() <= 1


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("change", [lambda p: p, wide])
def test_alpha_is_dropped_without_blending(tmp_path, kind, change):
    image = change(np.dstack([COLOR, np.zeros_like(GREY)]))
    assert np.array_equal(read_visible(store(tmp_path / f"a.{kind}", image)), image[..., :3])


def test_grey_with_alpha_is_read_as_grey(tmp_path):
    path = tmp_path / "a.png"
    rows = b"".join(b"\0" + np.stack([row, row * 0], 1).tobytes() for row in GREY)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 50, 40, 8, 4, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert np.array_equal(read_infrared(path), GREY)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_exif_orientation_is_ignored(tmp_path):
    path = store(tmp_path / "a.jpg", COLOR)
    plain, data = read_visible(path), path.read_bytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6: turn by 90 degrees
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    path.write_bytes(data[:2] + exif + data[2:])
    assert cv2.imread(str(path)).shape == (50, 40, 3), "the test file must have a rotated orientation"
    assert np.array_equal(read_visible(path), plain)
    assert read_infrared(path).shape == (40, 50)


def test_the_format_is_detected_from_the_content(tmp_path):
    store(tmp_path / "a.png", COLOR).rename(tmp_path / "a.jpg")
    assert np.array_equal(read_visible(tmp_path / "a.jpg"), COLOR)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 1])
@pytest.mark.parametrize("read", [read_visible, read_infrared])
def test_a_truncated_file_gives_a_one_line_error_and_no_other_output(tmp_path, capfd, suffix, share, read):
    path = store(tmp_path / f"a{suffix}", COLOR)
    data = path.read_bytes()
    path.write_bytes(data[: min(int(len(data) * share), len(data) - 1)])
    with pytest.raises(FileError) as raised:
        read(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    if suffix != ".bmp" or not cv2.__version__.startswith("4.6."):  # which prints them at any level
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize("short", [1, 500])
def test_a_truncated_tiff_with_its_directory_first_is_rejected(tmp_path, short):
    """Unlike OpenCV, other programs write the directory before the pixels, where truncation does not reach it."""
    # Width, height, bits, compression, photometric interpretation, offset, channels, rows and bytes of the strip.
    tags = [(256, 50), (257, 40), (258, 8), (259, 1), (262, 1), (273, 122), (277, 1), (278, 40), (279, 2000)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path = tmp_path / "a.tiff"
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + GREY.tobytes())
    assert np.array_equal(read_infrared(path), GREY)
    path.write_bytes(path.read_bytes()[:-short])
    with pytest.raises(FileError, match="a whole TIFF file, got a file truncated after"):
        read_infrared(path)


def test_a_truncated_jpeg_with_a_complete_thumbnail_is_rejected(tmp_path):
    path = store(tmp_path / "a.jpg", COLOR)
    data, thumbnail = path.read_bytes(), store(tmp_path / "t.jpg", COLOR[:8, :8]).read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
    path.write_bytes(data[:2] + segment + data[2:])
    read_visible(path)
    path.write_bytes((data[:2] + segment + data[2:])[:-300])
    with pytest.raises(FileError, match="a whole JPEG file"):
        read_visible(path)


def test_a_flipped_byte_in_a_png_is_detected(tmp_path):
    path = store(tmp_path / "a.png", COLOR)
    data = bytearray(path.read_bytes())
    for place in (20, 60, len(data) // 2, len(data) - 14):
        damaged = data.copy()
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(FileError, match="PNG file, got"):
            read_visible(path)


@pytest.mark.parametrize("content", [b"", b"hello, no image", b"GIF89a" + bytes(50), b"\xff\xd8\xff", b"BM", b"II*\0"])
def test_files_that_are_not_images_are_rejected(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"image|JPEG"):
        read_visible(path)


def test_a_missing_file_and_a_folder_are_rejected(tmp_path):
    with pytest.raises(FileError, match=r"gone.png must be a readable image file, got No such file"):
        read_visible(tmp_path / "gone.png")
    with pytest.raises(FileError, match="directory"):
        read_infrared(tmp_path)


def test_a_float_tiff_is_stretched_for_infrared_and_rejected_for_visible(tmp_path):
    celsius = np.linspace(-10, 40, 400, dtype=np.float32).reshape(20, 20)
    path = store(tmp_path / "a.tiff", celsius)
    infrared = read_infrared(path)
    assert infrared.dtype == np.uint8 and infrared.min() == 0 and infrared.max() == 255
    with pytest.raises(FileError, match=r"a\.tiff must be an image of 8 or 16 bits, got float32"):
        read_visible(path)
    celsius[5, 5] = np.nan
    filled = read_infrared(store(tmp_path / "b.tiff", celsius))
    assert np.abs(filled.astype(int) - infrared).max() <= 5


def test_signed_integers_are_rejected(tmp_path):
    with pytest.raises(FileError, match="got signed integers of 16 bits"):
        read_infrared(store(tmp_path / "a.tiff", GREY.astype(np.int16)))


@pytest.mark.parametrize("image", [GREY, COLOR, wide(GREY), wide(COLOR)])
def test_a_written_png_is_read_back_unchanged_also_by_opencv(tmp_path, image):
    path = tmp_path / "new" / "folder" / "a.png"
    write_png(path, image, {"Software": "test", "note": "Grüße, 夜"})
    assert np.array_equal((read_visible if image.ndim == 3 else read_infrared)(path), image)
    by_opencv = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(by_opencv[..., ::-1] if image.ndim == 3 else by_opencv, image)
    assert read_png_metadata(path) == {"Software": "test", "note": "Grüße, 夜"}


def test_text_chunks_follow_the_png_specification(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, GREY, {"Software": "plain\nlines", "note": "夜"})
    data = path.read_bytes()
    first, second = chunk(b"tEXt", b"Software\0plain\nlines"), chunk(b"iTXt", b"note\0\0\0\0\0" + "夜".encode())
    assert data[33:].startswith(first + second)


def test_pillow_reads_the_same_image_and_texts(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    path = tmp_path / "a.png"
    write_png(path, COLOR, {"Software": "test", "note": "Grüße, 夜"})
    with image.open(path) as opened:
        opened.load()
        assert opened.text == {"Software": "test", "note": "Grüße, 夜"}
        assert np.array_equal(np.asarray(opened), COLOR)


def test_texts_written_by_other_programs_are_read(tmp_path):
    path = store(tmp_path / "a.png", GREY)
    data = path.read_bytes()
    packed = zlib.compress("夜".encode())
    texts = [
        chunk(b"zTXt", b"packed\0\0" + zlib.compress(b"caf\xe9")),
        chunk(b"iTXt", b"unicode\0\1\0de\0Titel\0" + packed),
        chunk(b"iTXt", b"broken"),
    ]
    path.write_bytes(data[:33] + b"".join(texts) + data[33:])
    assert read_png_metadata(path) == {"packed": "café", "unicode": "夜"}


@pytest.mark.parametrize("texts", [{"": "x"}, {"k" * 80: "x"}, {"ä": "x"}, {" a": "x"}, {"a": "x\0y"}])
def test_texts_that_png_does_not_allow_are_rejected(tmp_path, texts):
    with pytest.raises(FileError):
        write_png(tmp_path / "a.png", GREY, texts)
    assert not list(tmp_path.iterdir())


def test_reading_metadata_of_another_format_is_rejected(tmp_path):
    with pytest.raises(FileError, match="a PNG file"):
        read_png_metadata(store(tmp_path / "a.bmp", GREY))


def test_an_existing_file_is_replaced_atomically(tmp_path):
    path, link = tmp_path / "a.png", tmp_path / "old.png"
    write_png(path, GREY)
    os.link(path, link)
    write_png(path, 255 - GREY)
    assert np.array_equal(read_infrared(path), 255 - GREY)
    assert np.array_equal(read_infrared(link), GREY), "the old file was modified in place"


def test_a_failed_write_leaves_no_files(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(FileError, match=r"a\.png must be a file that can be written"):
        write_png(tmp_path / "a.png", GREY)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError):
        write_png(tmp_path / "file" / "a.png", GREY)


def test_a_written_file_has_default_permissions(tmp_path):
    before = os.umask(0o022)
    try:
        write_png(tmp_path / "a.png", GREY)
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("image", [GREY.astype(np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)])
def test_images_of_other_types_are_not_written(tmp_path, image):
    with pytest.raises(ImageError, match=r"uint8 or uint16, \[H, W\]"):
        write_png(tmp_path / "a.png", image)


def fill(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_two_files_form_one_pair_named_after_the_visible_file(tmp_path):
    left, right = fill(tmp_path / "v", "one.v2.jpg"), fill(tmp_path / "i", "two.png")
    listing = find_pairs(left / "one.v2.jpg", str(right / "two.png"))
    assert list(listing) == [Pair("one.v2", left / "one.v2.jpg", right / "two.png")]
    assert not listing.visible_only and not listing.infrared_only


def test_folders_are_paired_by_stem_and_unpaired_images_listed(tmp_path):
    left = fill(tmp_path / "v", "b.JPG", "a.jpeg", "only.png", "notes.txt", ".hidden.png", "c.d.tif")
    right = fill(tmp_path / "i", "a.PNG", "b.bmp", "z.png", "y.tiff", "c.d.png", "only.txt")
    (right / "only.png").mkdir()
    listing = find_pairs(left, right)
    assert [(p.stem, p.visible.name, p.infrared.name) for p in listing] == [
        ("a", "a.jpeg", "a.PNG"),
        ("b", "b.JPG", "b.bmp"),
        ("c.d", "c.d.tif", "c.d.png"),
    ]
    assert (listing.visible_only, listing.infrared_only, len(listing)) == (("only",), ("y", "z"), 3)


def test_two_images_with_the_same_stem_are_rejected(tmp_path):
    left, right = fill(tmp_path / "v", "a.png", "a.jpg"), fill(tmp_path / "i", "a.png")
    with pytest.raises(FileError, match=r"one image for each name, got a\.jpg and a\.png"):
        find_pairs(left, right)


def test_folders_without_a_common_name_are_rejected_with_names(tmp_path):
    left, right = fill(tmp_path / "v", *[f"v{n}.png" for n in range(8)]), fill(tmp_path / "i", "i1.png")
    with pytest.raises(FileError, match=r"i1 here and v0, v1, v2, v3, v4 \(and 3 more\) there"):
        find_pairs(left, right)


def test_invalid_paths_are_rejected(tmp_path):
    left, empty = fill(tmp_path / "v", "a.png"), fill(tmp_path / "e", "readme.txt")
    with pytest.raises(FileError, match=r"must be a file, like the visible path .*, got a folder"):
        find_pairs(left / "a.png", left)
    with pytest.raises(FileError, match=r"must be a folder, like the visible path .*, got a file"):
        find_pairs(left, left / "a.png")
    with pytest.raises(FileError, match="gone must be an image or a folder of images, got no such file"):
        find_pairs(left, tmp_path / "gone")
    with pytest.raises(FileError, match=r"one with images .*, got no images"):
        find_pairs(left, empty)


class TestWriteAtomic:
    def test_a_file_is_replaced_completely_or_not_at_all(self, tmp_path, monkeypatch) -> None:
        path = tmp_path / "new" / "t.csv"
        write_atomic(path, b"old")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("pathlib.Path.write_bytes", full)
            with pytest.raises(FileError, match="must be a file that can be written, got No space left"):
                write_atomic(path, b"new")
        assert path.read_bytes() == b"old" and [p.name for p in path.parent.iterdir()] == ["t.csv"]
        write_atomic(path, b"new")
        assert path.read_bytes() == b"new"
