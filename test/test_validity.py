"""Pixels without a value: which they are, that no gain looks at them, and what they are filled with."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.config.sensors import GAINS, SensorConfig
from textdifuse_ros.errors import FileError, ImageError
from textdifuse_ros.evaluate.sets import read_pair
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.image.files import Pair, read_infrared, read_infrared_levels, write_png
from textdifuse_ros.image.gain import ThermalGain
from textdifuse_ros.image.intake import BAD_INFRARED, AlignedPair, IntakeError, SensorIntake, read_aligned
from textdifuse_ros.image.nodata import declared_nodata
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.image.validity import extend, fill_from_visible, find_valid

HEIGHT, WIDTH = 96, 128
SIZE = HEIGHT, WIDTH
HIGHEST = 65535


def scene(low: float = 28600, high: float = 30500, seed: int = 0) -> np.ndarray:
    """Counts of a street, uint16 [H, W]."""
    rng = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(rng.uniform(0, 1, SIZE).astype(np.float32), (0, 0), 4)
    image = np.rint(cv2.normalize(soft, None, low, high, cv2.NORM_MINMAX)).astype(np.uint16)
    image[48:60, 40:52], image[48:60, 76:88] = low, high  # the extremes are in the midst, not at the border
    return image


def kelvin(counts: np.ndarray) -> np.ndarray:
    return (counts * 0.01).astype(np.float32)


def frame() -> np.ndarray:
    mask = np.ones(SIZE, bool)
    mask[5:-4, 6:-3] = False
    return mask


def turned() -> np.ndarray:
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 9, 1)
    return cv2.warpAffine(np.ones(SIZE, np.float32), turn, SIZE[::-1]) < 0.999


def columns() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[:, :17] = True
    return mask


def lens() -> np.ndarray:
    """Barrel distortion removed: the middles of the sides are valid, the corners are not."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (x - WIDTH / 2) ** 2 + (y - HEIGHT / 2) ** 2 > (0.55 * WIDTH) ** 2


def scattered() -> np.ndarray:
    mask = np.random.default_rng(3).random(SIZE) < 0.02
    mask[:, [0, -1]] = mask[[0, -1]] = False
    return mask


SHAPES = {"frame": frame, "turned": turned, "columns": columns, "lens": lens, "scattered": scattered}
COUNTS = (0, HIGHEST)
FLOATS = (np.nan, np.inf, -np.inf, 0.0, -9999.0, np.finfo(np.float32).max)
CASES = [(shape, "uint16", value) for shape in SHAPES for value in COUNTS]
CASES += [(shape, "float32", value) for shape in SHAPES for value in FLOATS]


def with_hole(shape: str, dtype: str, value: float) -> tuple[np.ndarray, np.ndarray]:
    """A scene with pixels without a value, and which they are."""
    missing = SHAPES[shape]()
    image = scene() if dtype == "uint16" else kelvin(scene())
    image[missing] = value
    return image, missing


@pytest.mark.parametrize(("shape", "dtype", "value"), CASES)
def test_pixels_without_a_value_are_found_and_few_others(shape, dtype, value):
    image, missing = with_hole(shape, dtype, value)
    valid = find_valid(image)
    assert valid is not None and not valid[missing].any()
    around = cv2.dilate(missing.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert valid[~around].all(), "only pixels that interpolation may have mixed are left out beside them"
    if shape == "scattered" or not np.isfinite(value):
        assert valid[~missing].all()


def test_pixels_that_interpolation_has_mixed_with_a_border_are_left_out():
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 9, 1.6)
    turned_scene = cv2.warpAffine(scene(), turn, SIZE[::-1], flags=cv2.INTER_LINEAR)
    tilt = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), -9, 0.6)
    image = cv2.warpAffine(turned_scene, tilt, SIZE[::-1], flags=cv2.INTER_LINEAR)
    assert ((image > 0) & (image < 28000)).any(), "there are such pixels"
    valid = find_valid(image)
    assert valid is not None and image[valid].min() > 28000
    assert valid.sum() > 0.8 * (image > 28000).sum()


@pytest.mark.parametrize("value", COUNTS)
def test_objects_in_the_midst_of_such_a_value_stay_what_they_are(value):
    image = scene()
    image[40:44, 60:63] = value
    image[70, 30] = image[20, 90] = value
    assert find_valid(image) is None


def test_a_hot_object_that_the_border_cuts_stays_hot():
    image = scene()
    image[-12:, 60:74] = HIGHEST
    assert find_valid(image) is None


def test_a_scene_that_reaches_such_values_keeps_them():
    full = scene(0, HIGHEST)
    clipped = np.clip(full.astype(int) * 2 - 30000, 0, HIGHEST).astype(np.uint16)
    celsius = kelvin(scene()) - np.float32(295)
    celsius[30, 40] = celsius[0, 7] = 0.0
    for image in (full, clipped, celsius, scene(0, 900)):
        assert find_valid(image) is None


def test_zero_degrees_around_a_scene_of_celsius_is_no_value():
    celsius = kelvin(scene()) - np.float32(295)
    assert celsius.min() < 0 < celsius.max()
    celsius[frame()] = 0
    valid = find_valid(celsius)
    assert valid is not None and not valid[frame()].any() and valid[20:-20, 20:-20].all()


def test_both_ends_of_the_counts_may_stand_for_no_value_at_once():
    image = scene()
    image[frame()], image[:, :17] = 0, HIGHEST
    valid = find_valid(image)
    assert valid is not None and not valid[frame() | columns()].any() and valid[20:-20, 30:-20].all()


@pytest.mark.parametrize("shape", ["frame", "turned", "lens"])
def test_a_black_frame_is_found_where_black_is_a_value_and_the_scene_beside_it_is_not_dark(shape):
    image = to_uint8(scene()) // 2 + 80
    image[SHAPES[shape]()] = 0
    valid = find_valid(image)
    assert valid is not None and not valid[SHAPES[shape]()].any() and valid[40:-40, 40:-40].all()
    assert find_valid(np.where(image > 0, image // 16, 0).astype(np.uint8)) is None
    wide = image.astype(np.uint16) * 200
    wide[47:50, 60:64] = 40
    valid = find_valid(wide)
    assert valid is not None and not valid[SHAPES[shape]()].any() and valid[40:-40, 40:-40].all()
    sky = to_uint8(scene()) // 2 + 80
    sky[:30] = 0
    assert find_valid(sky) is None


@pytest.mark.parametrize(
    "image", [np.zeros(SIZE, np.uint16), np.full(SIZE, HIGHEST, np.uint16), np.full(SIZE, np.nan, np.float32)]
)
def test_an_image_without_any_value_is_refused(image, tmp_path: Path):
    with pytest.raises(ImageError, match=r"one that has values, got none in all 128 x 96 pixels"):
        find_valid(image)
    tifffile.imwrite(tmp_path / "a.tif", image)
    with pytest.raises(FileError, match=r"a\.tif must be one that has values"):
        read_infrared_levels(tmp_path / "a.tif")
    with pytest.raises(IntakeError, match="none in all") as caught:
        SensorIntake(SensorConfig()).align(None, message(image))
    assert caught.value.reason == BAD_INFRARED


# ---- what a file declares


def tiff(image: np.ndarray, nodata: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, extratags=[(42113, "s", 0, nodata, True)], **options)
    return buffer.getvalue()


def png(image: np.ndarray, transparent: int) -> bytes:
    data = cv2.imencode(".png", image)[1].tobytes()
    at, content = data.index(b"IDAT") - 4, b"tRNS" + struct.pack(">H", transparent)
    chunk = struct.pack(">I", 2) + content + struct.pack(">I", zlib.crc32(content))
    return data[:at] + chunk + data[at:]


def test_the_value_that_a_file_declares_as_no_data_is_none(tmp_path: Path):
    image, hole = scene(), scattered()
    image[hole] = 29000
    image[~hole & (image == 29000)] += 1
    white = HIGHEST - image
    files = {"a.tif": tiff(image, "29000"), "b.png": png(image, 29000), "c.tif": tiff(kelvin(image), "290.0")}
    files["d.tif"] = tiff(white, str(HIGHEST - 29000), photometric="miniswhite")
    files["e.tif"] = tiff((image // 128).astype(np.uint8), "226")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        levels, valid = read_infrared_levels(tmp_path / name)
        assert levels.dtype == np.uint8 and valid is not None and not valid[hole].any()
        assert name == "e.tif" or valid[~hole].all()


@pytest.mark.parametrize(
    "data", [b"", b"II*\0", tiff(scene(), "none at all"), cv2.imencode(".png", scene())[1].tobytes()]
)
def test_without_a_usable_declaration_there_is_none(data):
    assert declared_nodata(data) is None


# ---- gain


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize(("shape", "dtype", "value"), [c for c in CASES if c[2] in (0, HIGHEST) or np.isnan(c[2])])
def test_no_gain_looks_at_pixels_without_a_value(gain, shape, dtype, value):
    config = SensorConfig(gain=gain, gain_fixed_low=285, gain_fixed_high=306)
    image, missing = with_hole(shape, dtype, value)
    valid = find_valid(image)
    whole = scene() if dtype == "uint16" else kelvin(scene())
    expected = ThermalGain(config).apply(whole, 0)
    found = ThermalGain(config).apply(image, 0, valid=valid)
    assert np.abs(found.astype(int) - expected)[valid].mean() < 8
    # Where nothing is, what is beside it: neither black nor white.
    assert abs(float(found[missing].mean()) - expected.mean()) < 60


@pytest.mark.parametrize("gain", ["percentiles", "plateau", "minmax"])
def test_a_border_that_comes_and_goes_does_not_change_the_mapping(gain):
    smoothed = ThermalGain(SensorConfig(gain=gain))
    before = smoothed.apply(scene(), 0)
    image, _ = with_hole("frame", "uint16", 0)
    valid = find_valid(image)
    during = smoothed.apply(image, 33_000_000, valid=valid)
    assert np.abs(during.astype(int) - before)[valid].max() <= 2


# ---- filled from the visible image


def visible_of(level: int = 120) -> np.ndarray:
    rng = np.random.default_rng(8)
    return np.repeat(rng.integers(level - 3, level + 4, SIZE, dtype=np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize(("visible_level", "infrared_level"), [(120, 200), (120, 40), (30, 180)])
@pytest.mark.parametrize("shape", [*SHAPES])
def test_the_visible_stands_in_without_a_seam_or_streaks(shape, visible_level, infrared_level):
    visible, missing = visible_of(visible_level), SHAPES[shape]()
    rng = np.random.default_rng(9)
    infrared = rng.integers(infrared_level - 3, infrared_level + 4, SIZE, dtype=np.uint8)
    found = fill_from_visible(infrared, ~missing, visible)
    assert np.array_equal(found[~missing], infrared[~missing])
    assert abs(float(found[missing].mean()) - infrared_level) < 2
    detail = visible[..., 0].astype(float) - visible_level
    shown = found.astype(float) - infrared_level
    far = cv2.erode(missing.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    if far.any():
        assert np.abs(shown - detail)[far].max() < 4, "the visible's own detail, and nothing of the infrared's border"


def test_the_level_fades_to_the_luma_over_the_feather():
    visible, infrared, valid = visible_of(), np.full(SIZE, 200, np.uint8), ~columns()
    assert np.array_equal(fill_from_visible(infrared, valid, visible, 0)[~valid], visible[..., 0][~valid])
    faded = fill_from_visible(infrared, valid, visible, 8)
    assert np.array_equal(faded[:, :8], visible[:, :8, 0]) and faded[:, 16].mean() > 185


def test_without_a_visible_image_the_neighbors_fill_the_hole():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ramp = (40 + x + y // 2).astype(np.uint8)
    hole = scattered()
    broken = np.where(hole, 0, ramp).astype(np.uint8)
    assert np.abs(extend(broken, ~hole).astype(int) - ramp).max() <= 3


# ---- every way in


def message(image: np.ndarray, stamp_ns: int = 10**9) -> Any:
    encoding = {("uint8", 2): "mono8", ("uint16", 2): "mono16", ("float32", 2): "32FC1", ("uint8", 3): "rgb8"}
    header = SimpleNamespace(stamp=SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id="camera")
    return SimpleNamespace(
        header=header, height=image.shape[0], width=image.shape[1], is_bigendian=0,
        encoding=encoding[image.dtype.name, image.ndim], step=image[0].nbytes,
        data=np.frombuffer(image.tobytes(), np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize("polarity", ["white_hot", "black_hot"])
@pytest.mark.parametrize(("shape", "dtype", "value"), [c for c in CASES if c[2] in (0, HIGHEST) or np.isnan(c[2])])
def test_messages_and_files_follow_the_same_rule(shape, dtype, value, polarity, tmp_path: Path):
    visible, (image, missing) = visible_of(), with_hole(shape, dtype, value)
    intake = SensorIntake(SensorConfig(infrared_polarity=polarity))
    pair = intake.align(message(visible), message(image))
    valid = find_valid(image)
    assert valid is not None and pair.infrared is not None
    assert pair.no_value == pytest.approx(1 - valid.mean()) and pair.no_value > missing.mean() - 1e-9
    whole = SensorIntake(intake.config).align(message(visible), message(scene()))
    assert whole.no_value == 0 and np.abs(pair.infrared.astype(int) - whole.infrared)[valid].mean() < 6
    tifffile.imwrite(tmp_path / "a.tif", image)
    levels, found = read_infrared_levels(tmp_path / "a.tif")
    assert np.array_equal(found, valid)
    of_files = AlignedPair.of(visible, levels, found)
    assert of_files.no_value == pair.no_value
    if polarity == "white_hot":
        assert np.abs(of_files.infrared.astype(int) - pair.infrared).max() <= 1
    if dtype == "float32":
        assert read_infrared(tmp_path / "a.tif").dtype == np.uint8


def test_a_border_is_registered_with_its_image_and_joined_with_what_lies_outside():
    """The infrared image is shifted by 24 pixels; its own border must not appear anywhere."""
    visible, infrared = visible_of(120), scene(29000, 29200)
    infrared[40:60, 60:80] = 30500
    clean = infrared.copy()
    infrared[frame()] = 0
    config = SensorConfig(registration="homography", infrared_homography=(1, 0, 24.4, 0, 1, 0.3, 0, 0, 1))
    pair = SensorIntake(config).align(message(visible), message(infrared))
    other = SensorIntake(config).align(message(visible), message(clean))
    inside = np.zeros(SIZE, bool)
    inside[10:-10, 36:-10] = True
    assert np.abs(pair.infrared.astype(int) - other.infrared)[inside].max() <= 8
    columns_mean = pair.infrared[65:90].astype(float).mean(0)
    assert np.abs(np.diff(columns_mean[10:50])).max() < 8


def test_an_infrared_image_alone_is_completed_from_its_own_pixels():
    image, missing = with_hole("frame", "uint16", 0)
    alone = SensorIntake(SensorConfig()).align(None, message(image))
    assert alone.no_value > 0
    assert abs(float(alone.infrared[missing].mean()) - float(alone.infrared[~missing].mean())) < 40


@pytest.mark.parametrize(("road", "warmth"), [(110, 30450), (110, 28750)])
def test_a_registered_infrared_that_ends_on_an_even_road_leaves_no_step(road, warmth):
    """With the shipped weights; the visible steps by less than 1 grey level there."""
    visible = cv2.GaussianBlur(visible_of(road), (0, 0), 2)
    infrared = np.full(SIZE, warmth, np.uint16)
    infrared[:40] = scene()[:40]
    config = SensorConfig(registration="homography", infrared_homography=(1, 0, 48, 0, 1, 0, 0, 0, 1))
    pair = SensorIntake(config).align(message(visible), message(infrared))
    fuser = Fuser.from_config(FuserConfig(steps=1, device="cpu"))
    fused = fuser.fuse(pair.visible, pair.infrared).image.astype(float).mean(2)
    rows = fused[56:90]
    assert abs(rows[:, 50:64].mean() - rows[:, 32:46].mean()) < 8
    assert np.abs(np.diff(rows.mean(0))[20:90]).max() < 4


def test_evaluated_pairs_are_completed_like_fused_ones(tmp_path: Path):
    visible, (image, missing) = visible_of(), with_hole("frame", "uint16", 0)
    files = Pair("a", tmp_path / "vis.png", tmp_path / "ir.png")
    write_png(files.visible, visible)
    write_png(files.infrared, image)
    read = read_pair(files)[1]
    fused = read_aligned(files).infrared
    assert np.array_equal(read, fused) and read[missing].min() > 0
