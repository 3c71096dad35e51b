"""Rectification and registration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from calibrations import DISTORTIONS, EYE, K, camera_info
from hypothesis import given, settings
from hypothesis import strategies as st

from textdifuse_ros.config.sensors import SensorConfig, check_sensors
from textdifuse_ros.errors import CalibrationError, ConfigError, FileError, ImageError
from textdifuse_ros.image.camera import Camera, camera_from_info, read_camera
from textdifuse_ros.image.registration import compute_alignment, compute_rectification


def camera(**fields) -> Camera:
    return camera_from_info(camera_info(**fields), "the visible camera")


def smooth_image(size=(160, 120), seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (size[1], size[0])).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def dots(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A black image with soft dots."""
    y, x = np.mgrid[: size[1], : size[0]]
    image = np.zeros((size[1], size[0]))
    for px, py in points:
        image += 250 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 1.5**2))
    return np.clip(image, 0, 255).astype(np.uint8)


def center_of_mass(image: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Center of mass within 6 pixels of a point."""
    left, top = np.round(near).astype(int) - 6
    part = image[max(top, 0) : top + 13, max(left, 0) : left + 13].astype(float)
    y, x = np.mgrid[: part.shape[0], : part.shape[1]]
    return np.array([max(left, 0) + (part * x).sum() / part.sum(), max(top, 0) + (part * y).sum() / part.sum()])


@pytest.mark.parametrize("model", DISTORTIONS)
@pytest.mark.parametrize("zoom", [1.0, 0.8])
def test_rectification_agrees_with_opencv(model, zoom):
    matrix, projection = np.reshape(K, (3, 3)), np.reshape(K, (3, 3)) * [[zoom], [zoom], [1]]
    coefficients, size = np.array(DISTORTIONS[model]), (160, 120)
    build = cv2.fisheye.initUndistortRectifyMap if model == "equidistant" else cv2.initUndistortRectifyMap
    maps = build(matrix, coefficients, np.eye(3), projection, size, cv2.CV_32FC1)
    mapping = compute_rectification(camera(model=model, d=DISTORTIONS[model], p=projection.reshape(-1)))
    assert mapping is not None
    inside = (maps[0] > 0) & (maps[0] < 159) & (maps[1] > 0) & (maps[1] < 119)
    assert inside.mean() > 0.5
    assert np.abs(mapping.x - maps[0])[inside].max() < 0.01 and np.abs(mapping.y - maps[1])[inside].max() < 0.01


def test_rectification_of_a_rotated_stereo_camera_agrees_with_opencv():
    matrix, coefficients = np.reshape(K, (3, 3)), np.array(DISTORTIONS["plumb_bob"])
    rotation, _ = cv2.Rodrigues(np.array([0.01, -0.03, 0.02]))
    maps = cv2.initUndistortRectifyMap(matrix, coefficients, rotation, matrix, (160, 120), cv2.CV_32FC1)
    mapping = compute_rectification(camera(d=DISTORTIONS["plumb_bob"], r=rotation.reshape(-1)))
    inside = (maps[0] > 0) & (maps[0] < 159) & (maps[1] > 0) & (maps[1] < 119)
    assert np.abs(mapping.x - maps[0])[inside].max() < 0.01 and np.abs(mapping.y - maps[1])[inside].max() < 0.01


@pytest.mark.parametrize("d", [(), (0.0,) * 5, (0.0,) * 8])
@pytest.mark.parametrize("model", ["plumb_bob", "", "something"])
def test_images_of_a_camera_without_distortion_are_left_unchanged(d, model):
    plain = camera(d=d, model=model)
    assert plain.is_plain and compute_rectification(plain) is None
    config = SensorConfig(rectify=True)
    image, color = smooth_image(), np.repeat(smooth_image()[..., None], 3, 2)
    visible_result, result = compute_alignment(config, (160, 120), (160, 120), plain, plain).apply(color, image)
    assert visible_result is color and result is image


def test_binning_and_region_of_interest_are_applied_to_the_matrix():
    whole = camera(d=DISTORTIONS["plumb_bob"])
    part = camera(d=DISTORTIONS["plumb_bob"], binning=(2, 2), roi=(20, 10, 120, 100))
    assert (part.width, part.height) == (60, 50)
    pixels = np.array([[10.0, 12.0], [30.0, 20.0], [55.0, 44.0]])
    assert np.allclose(part.distort(pixels), (whole.distort(pixels * 2 + [20, 10]) - [20, 10]) / 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": (0.0,) * 9}, r"the calibration of the visible camera must be valid .* calibrate the camera"),
        ({"model": "thin_prism", "d": (0.1,) * 5}, "the distortion model .* one of plumb_bob, rational_polynomial"),
        ({"d": (0.1, 0.2)}, "4 or 5 coefficients for plumb_bob, got 2"),
        ({"model": "equidistant", "d": (0.1,) * 5}, "4 coefficients for equidistant, got 5"),
        ({"roi": (100, 0, 100, 100)}, "one with a roi within 160 x 120"),
        ({"d": (float("nan"),) * 5}, "finite numbers"),
        ({"p": (*K[:4], -1.0, *K[5:])}, "P in the calibration of the visible camera must be invertible"),
        ({"r": (2.0, *EYE[1:])}, "R in the calibration of the visible camera must be a rotation matrix"),
    ],
)
def test_an_invalid_calibration_is_rejected_with_the_reason(fields, message):
    with pytest.raises(CalibrationError, match=message):
        camera(**fields)


def test_a_calibration_file_is_read(tmp_path: Path):
    path = tmp_path / "camera.yaml"
    rows = {"camera": K, "rectification": EYE, "projection": (*K[0:3], 0, *K[3:6], 0, *K[6:9], 0)}
    text = "image_width: 160\nimage_height: 120\ncamera_name: front\ndistortion_model: plumb_bob\n"
    text += "distortion_coefficients: {rows: 1, cols: 5, data: [-0.28, 0.09, 0.001, -0.0007, -0.01]}\n"
    for name, data in rows.items():
        text += f"{name}_matrix: {{rows: 3, cols: {len(data) // 3}, data: {list(data)}}}\n"
    path.write_text(text, encoding="utf-8")
    assert read_camera(path, "the visible camera") == camera(d=DISTORTIONS["plumb_bob"])
    path.write_text("image_width: 160\n", encoding="utf-8")
    with pytest.raises(FileError, match="a calibration file of camera_calibration"):
        read_camera(path, "the visible camera")
    with pytest.raises(FileError, match="a readable calibration file"):
        read_camera(tmp_path / "none.yaml", "the visible camera")


@settings(max_examples=40, deadline=None)
@given(dx=st.integers(-20, 20), dy=st.integers(-20, 20), width=st.integers(30, 70), height=st.integers(30, 70))
def test_a_shift_by_whole_pixels_is_exact_and_filled_with_the_visible_luma(dx, dy, width, height):
    rng = np.random.default_rng(3)
    visible = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    infrared = rng.integers(0, 256, (height, width), dtype=np.uint8)
    config = SensorConfig(registration="homography", infrared_homography=(1, 0, dx, 0, 1, dy, 0, 0, 1),
                          registration_feather=0)  # fmt: skip
    visible_result, result = compute_alignment(config, (64, 48), (width, height), None, None).apply(visible, infrared)
    luma = cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)
    y, x = np.mgrid[:48, :64]
    inside = (x - dx >= 0) & (x - dx < width) & (y - dy >= 0) & (y - dy < height)
    expected = np.where(inside, infrared[(y - dy).clip(0, height - 1), (x - dx).clip(0, width - 1)], luma)
    assert visible_result is visible and result.dtype == np.uint8 and np.array_equal(result, expected)


def test_the_border_of_the_infrared_fades_outside_its_view_and_not_inside():
    visible, infrared = np.full((60, 80, 3), 200, np.uint8), np.full((60, 40), 50, np.uint8)
    config = SensorConfig(registration="homography", infrared_homography=(1, 0, 20, 0, 1, 0, 0, 0, 1),
                          registration_feather=6)  # fmt: skip
    _, result = compute_alignment(config, (80, 60), (40, 60), None, None).apply(visible, infrared)
    row = result[30].astype(int)
    assert np.all(row[:13] == 200) and np.all(row[67:] == 200) and np.all(result[:, 20:60] == 50)
    assert np.all(np.diff(row[:40]) <= 0) and len(set(row[13:20])) >= 6


def test_the_homography_maps_an_infrared_image_of_another_size():
    points = np.array([[20.0, 15.0], [60.0, 30.0], [35.0, 50.0]])
    homography = np.array([[1.9, 0.05, 6.0], [-0.04, 2.1, -4.0], [1e-4, -2e-4, 1.0]])
    expected = np.column_stack((points, np.ones(3))) @ homography.T
    expected = expected[:, :2] / expected[:, 2:]
    config = SensorConfig(registration="homography", infrared_homography=tuple((3 * homography).reshape(-1)))
    infrared = dots(points, (80, 64))
    alignment = compute_alignment(config, (160, 128), (80, 64), None, None)
    _, moved = alignment.apply(np.zeros((128, 160, 3), np.uint8), infrared)
    for point in expected:
        assert np.hypot(*(center_of_mass(moved, point) - point)) < 0.3


@pytest.mark.parametrize("model", DISTORTIONS)
def test_rays_inverts_project(model):
    lens = camera(d=DISTORTIONS[model], model=model)
    y, x = np.mgrid[:120:7, :160:7]
    pixels = np.column_stack((x.reshape(-1), y.reshape(-1))).astype(float)
    assert np.abs(lens.project(3.0 * lens.rays(pixels)) - pixels).max() < 1e-3


def test_a_fisheye_with_its_image_circle_inside_the_image_is_rectified():
    """The border of the image is outside its field of view."""
    lens = camera(d=(0.0,) * 4, model="equidistant", k=(40.0, 0.0, 80.0, 0.0, 40.0, 60.0, 0.0, 0.0, 1.0))
    assert compute_rectification(lens) is not None
    assert np.isnan(lens.rays(np.array([[0.0, 0.0], [159.0, 119.0]]))).all()


def test_an_empty_p_is_replaced_by_k_and_an_empty_r_by_the_identity():
    empty = camera(p=(0.0,) * 8 + (1.0,), r=(0.0,) * 9)
    assert empty.projection == K and empty.rectification == EYE


def test_an_ideal_fisheye_is_not_a_pinhole():
    """Pixels are proportional to the angle, not to its tangent: 45 degrees are at f * pi / 4."""
    lens = camera(d=(0.0,) * 4, model="equidistant")
    assert not lens.is_plain
    assert np.allclose(lens.project(np.array([[1.0, 0.0, 1.0]])), [[K[2] + K[0] * np.pi / 4, K[5]]])


def test_a_homography_is_rejected_for_other_image_sizes():
    config = SensorConfig(registration="homography", homography_sizes=(160, 120, 80, 60))
    assert compute_alignment(config, (160, 120), (80, 60), None, None).infrared is not None
    with pytest.raises(ImageError, match=r"the infrared image must be of the size in homography_sizes \(80 x 60"):
        compute_alignment(config, (160, 120), (40, 30), None, None)
    any_infrared = replace(config, homography_sizes=(160, 0, 0, 0))
    assert compute_alignment(any_infrared, (160, 120), (40, 30), None, None).infrared
    with pytest.raises(ImageError, match="the visible image must be of the size in homography_sizes"):
        compute_alignment(config, (320, 240), (80, 60), None, None)


def test_a_change_of_the_gain_does_not_recompute_the_mappings():
    config = SensorConfig(registration="homography")
    before = compute_alignment(config, (160, 120), (80, 60), None, None)
    assert compute_alignment(replace(config, gain_cut=0.5), (160, 120), (80, 60), None, None) is before
    assert compute_alignment(replace(config, registration_feather=3), (160, 120), (80, 60), None, None) is not before


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
def test_extrinsics_align_points_at_the_registration_depth_only(rectify, rotated):
    """Points are projected by OpenCV into both cameras, which differ in position and rotation."""
    k_ir = (90.0, 0.0, 40.0, 0.0, 91.0, 33.0, 0.0, 0.0, 1.0)
    rotation, _ = cv2.Rodrigues(np.array([0.02, -0.05, 0.03]))
    position = np.array([0.25, -0.1, 0.05])
    stereo = cv2.Rodrigues(np.array([0.01, 0.02, 0.0]))[0].reshape(-1) if rotated and rectify else EYE
    d, d_ir = DISTORTIONS["plumb_bob"], (-0.2, 0.05, 0.0, 0.0)
    visible_camera = camera(d=d, r=stereo)
    infrared_camera = camera(d=d_ir, k=k_ir, size=(80, 64))
    config = SensorConfig(registration="extrinsics", rectify=rectify, infrared_rotation=tuple(rotation.reshape(-1)),
                          infrared_translation=tuple(position), registration_depth=8.0)  # fmt: skip
    check_sensors(config)
    frame_points = np.array([[-1.5, -1.0, 8.0], [1.2, 0.8, 8.0], [0.3, -1.1, 8.0]])
    for scale, together in ((1.0, True), (0.4, False)):
        in_rectified = frame_points * scale
        points = in_rectified @ np.reshape(stereo, (3, 3)) if rectify else in_rectified
        in_infrared = (points - position) @ rotation
        projected, _ = cv2.projectPoints(
            in_infrared, np.zeros(3), np.zeros(3), np.reshape(k_ir, (3, 3)), np.array(d_ir)
        )
        infrared = dots(projected.reshape(-1, 2), (80, 64))
        mapping = compute_alignment(config, (160, 120), (80, 64), visible_camera, infrared_camera)
        _, result = mapping.apply(np.zeros((120, 160, 3), np.uint8), infrared)
        lens = np.zeros(5) if rectify else np.array(d)
        expected, _ = cv2.projectPoints(in_rectified, np.zeros(3), np.zeros(3), np.reshape(K, (3, 3)), lens)
        expected = expected.reshape(-1, 2)
        errors = [np.hypot(*(center_of_mass(result, point) - point)) for point in expected[:1]]
        assert (max(errors) < 0.4) == together


def test_pairs_that_cannot_be_aligned_are_rejected_with_a_remedy():
    with pytest.raises(ImageError, match=r"as large as the visible one .* find the homography by textdifuse"):
        compute_alignment(SensorConfig(), (64, 48), (32, 24), None, None)
    far = SensorConfig(registration="homography", infrared_homography=(1, 0, 900, 0, 1, 0, 0, 0, 1))
    with pytest.raises(CalibrationError, match="overlapping views"):
        compute_alignment(far, (64, 48), (64, 48), None, None)
    with pytest.raises(CalibrationError, match="publish infrared/camera_info, or set infrared_calibration to a file"):
        compute_alignment(SensorConfig(rectify=True), (160, 120), (160, 120), camera(), None)
    with pytest.raises(CalibrationError, match="calibrate at the size that the driver sends"):
        camera().check_size(np.zeros((64, 80), np.uint8), "the visible camera")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"registration": "homography", "infrared_homography": (0.0,) * 9}, "infrared_homography"),
        ({"infrared_homography": (1.0,) * 8}, "infrared_homography"),
        ({"homography_sizes": (640, 480)}, "homography_sizes"),
        ({"infrared_rotation": (2.0, *EYE[1:])}, "infrared_rotation"),
        ({"infrared_rotation": (-1.0, *EYE[1:])}, "infrared_rotation"),
        ({"infrared_translation": (1.0, 2.0)}, "infrared_translation"),
        ({"gain_fixed_low": 320.0}, "gain_fixed_low"),
    ],
)
def test_contradictory_parameters_are_rejected_by_name(values, name):
    with pytest.raises(ConfigError, match=name):
        check_sensors(SensorConfig(**values))


def test_the_scale_of_a_homography_is_arbitrary():
    check_sensors(SensorConfig(registration="homography", infrared_homography=tuple(1e-5 * n for n in EYE)))
