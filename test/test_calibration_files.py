"""Calibrations as drivers and programs write them: D filled with zeros, `ros2 topic echo`, OpenCV's FileStorage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bag_makers import PERIOD, START, STORE, image, images, scene
from calibrations import DISTORTIONS, EYE, K, camera_info

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import CalibrationError, FileError
from textdifuse_ros.image.camera import Camera, camera_from_info, read_camera
from textdifuse_ros.offline.plan import RecordingJob
from textdifuse_ros.offline.recording import fuse_recording

WHAT = "the visible camera"
PLUMB_BOB = DISTORTIONS["plumb_bob"]
TWELVE = (*DISTORTIONS["rational_polynomial"], 0.001, -0.002, 0.003, 0.0005)
MODELS = {
    "plumb_bob of 4": ("plumb_bob", PLUMB_BOB[:4]),
    "plumb_bob of 5": ("plumb_bob", PLUMB_BOB),
    "plumb_bob ending in zero": ("plumb_bob", (*PLUMB_BOB[:2], 0.0, 0.0, 0.0)),
    "rational_polynomial of 8": ("rational_polynomial", DISTORTIONS["rational_polynomial"]),
    "rational_polynomial of 12": ("rational_polynomial", TWELVE),
    "rational_polynomial of 14": ("rational_polynomial", (*TWELVE, 0.01, -0.02)),
    "equidistant": ("equidistant", DISTORTIONS["equidistant"]),
    "fisheye": ("fisheye", DISTORTIONS["equidistant"]),
}
P = (*K[0:3], 0.0, *K[3:6], 0.0, *K[6:9], 0.0)


def camera(model: str, d: tuple[float, ...]) -> Camera:
    return camera_from_info(camera_info(model=model, d=d), WHAT)


@pytest.mark.parametrize("padding", [1, 2, 3, 4, 9, 50])
@pytest.mark.parametrize(("model", "d"), MODELS.values(), ids=MODELS)
def test_zeros_beyond_the_coefficients_of_a_model_change_nothing(model: str, d: tuple, padding: int) -> None:
    plain, padded = camera(model, d), camera(model, (*d, *(0.0,) * padding))
    grid = np.stack(np.meshgrid(np.arange(0.0, 160, 9), np.arange(0.0, 120, 9)), -1).reshape(-1, 2)
    assert np.array_equal(padded.distort(grid), plain.distort(grid), equal_nan=True)


@pytest.mark.parametrize("padding", [1, 3, 9])
@pytest.mark.parametrize(("model", "d"), [("plumb_bob", PLUMB_BOB), ("equidistant", DISTORTIONS["equidistant"]),
                                          ("rational_polynomial", (*TWELVE, 0.01, -0.02))])  # fmt: skip
def test_other_numbers_beyond_the_coefficients_are_refused(model: str, d: tuple, padding: int) -> None:
    with pytest.raises(CalibrationError, match=f"coefficients for {model}, got {len(d) + padding}; more of them must"):
        camera(model, (*d, *(0.0,) * (padding - 1), 1e-9))


def calibration_yaml(d: tuple[float, ...], model: str = "plumb_bob") -> str:
    text = f"image_width: 160\nimage_height: 120\ndistortion_model: {model}\n"
    text += f"distortion_coefficients: {{rows: 1, cols: {len(d)}, data: {list(d)}}}\n"
    for name, data in {"camera": K, "rectification": EYE, "projection": P}.items():
        text += f"{name}_matrix: {{rows: 3, cols: {len(data) // 3}, data: {list(data)}}}\n"
    return text


def echo(d: tuple[float, ...] = PLUMB_BOB, roi: tuple[int, ...] = (0, 0, 0, 0), binning: int = 0) -> str:
    """One message as ``ros2 topic echo`` prints it."""
    lines = ["header:", "  stamp:", "    sec: 1700000000", "    nanosec: 5", "  frame_id: color", "height: 120",
             "width: 160", "distortion_model: plumb_bob"]  # fmt: skip
    for name, values in {"d": d, "k": K, "r": EYE, "p": P}.items():
        lines += [f"{name}:", *(f"- {value}" for value in values)]
    x, y, width, height = roi
    lines += [f"binning_x: {binning}", f"binning_y: {binning}", "roi:", f"  x_offset: {x}", f"  y_offset: {y}",
              f"  height: {height}", f"  width: {width}", "  do_rectify: false", "---", ""]  # fmt: skip
    return "\n".join(lines)


def ros1(d: tuple[float, ...]) -> str:
    """One message as ``rostopic echo`` prints it."""
    arrays = "".join(f"{name}: {list(value)}\n" for name, value in {"D": d, "K": K, "R": EYE, "P": P}.items())
    return f'header: \n  seq: 3\nheight: 120\nwidth: 160\ndistortion_model: "plumb_bob"\n{arrays}binning_x: 0\n---\n'


FILES = {
    "camera_calibration": calibration_yaml(PLUMB_BOB),
    "camera_calibration with zeros": calibration_yaml((*PLUMB_BOB, 0, 0, 0)),
    "camera_calibration after a separator": "---\n" + calibration_yaml(PLUMB_BOB),
    "one message": echo(),
    "messages": echo() * 20,
    "messages, the last cut short": echo() * 2 + echo()[:200],
    "a message with zeros": echo((*PLUMB_BOB, 0.0, 0.0, 0.0)),
    "a message of ROS 1": ros1(PLUMB_BOB) * 2,
    "Windows line ends": (echo() * 2).replace("\n", "\r\n"),
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_every_kind_of_file_gives_the_same_camera(text: str, tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_bytes(text.encode())
    assert read_camera(path, WHAT) == camera("plumb_bob", PLUMB_BOB)


def test_binning_and_region_of_an_echoed_message_count(tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(echo(roi=(10, 20, 80, 60), binning=2), encoding="utf-8")
    info = camera_info(d=PLUMB_BOB, roi=(10, 20, 80, 60), binning=(2, 2))
    assert read_camera(path, WHAT) == camera_from_info(info, WHAT)


@pytest.mark.parametrize("first_line", ["%YAML:1.0\n---\n", "%YAML 1.2\n---\n", "%YAML:1.0\n"])
@pytest.mark.parametrize(
    ("model", "d", "fields"),
    [
        ("plumb_bob", PLUMB_BOB, {}),
        ("plumb_bob", PLUMB_BOB[:4], {}),
        ("rational_polynomial", DISTORTIONS["rational_polynomial"], {"flags": 16384}),
        ("rational_polynomial", (*TWELVE, 0.01, -0.02), {"fisheye_model": 0}),
        ("equidistant", DISTORTIONS["equidistant"], {"fisheye_model": 1}),
    ],
)
def test_what_opencv_writes_is_read(model: str, d: tuple, fields: dict, first_line: str, tmp_path: Path) -> None:
    path = tmp_path / "camera.yml"
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    file.write("calibration_time", "Tue Dec  1 03:00:00 2026")
    for name, value in {"image_width": 160, "image_height": 120, **fields}.items():
        file.write(name, value)
    file.write("camera_matrix", np.reshape(K, (3, 3)))
    file.write("distortion_coefficients", np.reshape(d, (-1, 1)))
    file.write("extrinsic_parameters", np.zeros((4, 6)))
    file.release()
    body = path.read_text(encoding="utf-8").split("---\n")[1]
    path.write_text(first_line + body, encoding="utf-8")
    assert read_camera(path, WHAT) == camera(model, d)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (calibration_yaml(PLUMB_BOB).replace("image_width", "width"), "a file without 'image_width'"),
        (calibration_yaml(PLUMB_BOB).replace("130.0", "abc"), "could not convert string to float"),
        (calibration_yaml(PLUMB_BOB).replace("130.0", "9" * 400), "too large"),
        ("cam0:\n  camera_model: pinhole\n  intrinsics: [1, 2, 3, 4]\n", "a file without 'rectification_matrix'"),
        ("[1, 2]", "list"),
        ("", "NoneType"),
        ("---\n---\n", "NoneType"),
    ],
)
def test_other_files_are_refused_with_the_formats_that_are_read(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=rf"camera_calibration, `ros2 topic echo` .* or OpenCV, got .*{message}"):
        read_camera(path, WHAT)


def message(d: tuple[float, ...]) -> bytes:
    """CDR of a camera_info of the images of :func:`.scene`."""
    types: Any = STORE.types
    roi = types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    stamp = types["builtin_interfaces/msg/Time"](sec=START // 10**9, nanosec=0)
    k = (64.0, 0.0, 32.0, 0.0, 64.0, 24.0, 0.0, 0.0, 1.0)
    info = types["sensor_msgs/msg/CameraInfo"](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="x"), height=48, width=64,
        distortion_model="plumb_bob", d=np.array(d), k=np.array(k), r=np.array(EYE),
        p=np.array((*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0)), binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(info, "sensor_msgs/msg/CameraInfo"))


def test_zeros_beyond_the_coefficients_in_a_recording_change_no_image(tiny_checkpoint: Path, tmp_path: Path) -> None:
    fused = []
    for name, d in {"five": PLUMB_BOB, "eight": (*PLUMB_BOB, 0.0, 0.0, 0.0)}.items():
        with BagWriter(tmp_path / name, "mcap") as bag:
            for camera_name, encoding, pixels in zip(("color", "thermal"), ("rgb8", "mono16"), scene(0), strict=True):
                bag.add_topic(f"/{camera_name}/image_raw", IMAGE_TYPE)
                bag.add_topic(f"/{camera_name}/camera_info", "sensor_msgs/msg/CameraInfo")
                bag.write_raw(f"/{camera_name}/camera_info", START, message(d))
                stamp = START + PERIOD
                bag.write_raw(f"/{camera_name}/image_raw", stamp, image(pixels, stamp, camera_name, encoding))
        config = FusionNodeConfig(model=str(tiny_checkpoint), rectify=True, steps=1)
        job = RecordingJob(tmp_path / name, tmp_path / f"{name}_fused", config=config)
        list(fuse_recording(job))
        fused.append([item.data.tobytes() for item in images(tmp_path / f"{name}_fused")])
    assert len(fused[0]) == 1 and fused[0] == fused[1]
