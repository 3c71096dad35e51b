"""``fusion_node`` with sensors as they are: compressed, raw counts, of different size, distorted; a real process."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
import yaml
from calibrations import EYE, K

pytest.register_assert_rewrite("ros_helpers.fusion_rig")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from ros_helpers.fusion_rig import FAST, dropped_since, image, pixels
from sensor_msgs.msg import CameraInfo, CompressedImage

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.image.intake import SensorIntake
from textdifuse_ros.nodes.qos import latched_profile, output_profile
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE

pytest_plugins = ["ros_helpers.fusion_rig"]

HOMOGRAPHY = (2.0, 0.0, 3.0, 0.0, 2.0, -4.0, 0.0, 0.0, 1.0)


def compressed(image: np.ndarray, form: str, like) -> CompressedImage:
    message = CompressedImage(header=like.header, format=form)
    coded = image if image.ndim == 2 else image[:, :, ::-1]
    message.data = array("B", cv2.imencode(".png", coded)[1].tobytes())
    return message


def calibration(width: int, height: int, zeros: int = 0) -> CameraInfo:
    """A camera_info, with zeros beyond the coefficients of its model as some drivers send them."""
    k = [80.0, 0.0, width / 2, 0.0, 80.0, height / 2, 0.0, 0.0, 1.0]
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", k=k)
    info.d = [-0.2, 0.05, 0.0, 0.0, 0.0, *[0.0] * zeros]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0]
    return info


def test_compressed_cameras_of_different_size_are_rectified_registered_and_fused(start, tiny_checkpoint):
    """The node's image is, byte for byte, the fuser's of the pair that the intake makes of the same messages."""
    settings = {"rectify": True, "registration": "homography", "infrared_homography": HOMOGRAPHY}
    process, rig = start(
        f"model:={tiny_checkpoint}", *FAST, "threads:=1", "visible_transport:=compressed",
        "infrared_transport:=compressed", "rectify:=true", "registration:=homography",
        f"infrared_homography:={list(HOMOGRAPHY)}",
    )  # fmt: skip
    create = rig.node.create_publisher
    senders = {s: create(CompressedImage, f"/{s}/image/compressed", output_profile(50)) for s in SENSORS}
    infos = {s: create(CameraInfo, f"/{s}/camera_info", output_profile(5)) for s in SENSORS}
    ends = (*senders.values(), *infos.values())
    assert rig.wait_for(lambda: all(end.get_subscription_count() == 1 for end in ends), 60), process.text()
    assert rig.wait_for(lambda: rig.state() == "active")
    rig.spin(0.3)

    rng = np.random.default_rng(0)
    visible = cv2.GaussianBlur(rng.integers(0, 256, (72, 96, 3), dtype=np.uint8), (0, 0), 2)
    counts = cv2.GaussianBlur(rng.integers(28000, 31000, (40, 50)).astype(np.float32), (0, 0), 1.5).astype(np.uint16)

    def send() -> tuple[CompressedImage, CompressedImage]:
        rig.now_ns += 100_000_000
        like = image(visible, rig.now_ns, "color_frame")
        pair = (
            compressed(visible, "rgb8; png compressed bgr8", like),
            compressed(counts, "mono16; png compressed ", like),
        )
        for stream, message in zip(SENSORS, pair, strict=True):
            senders[stream].publish(message)
        return pair

    before = rig.counters()
    send()
    assert rig.wait_for(lambda: dropped_since(before, rig.counters()) == {"no_calibration": 1}), rig.counters()
    assert rig.wait_for(lambda: "publish visible/camera_info" in process.text())
    report: list[CameraInfo] = []
    rig.node.create_subscription(CameraInfo, "/fusion_node/fused/camera_info", report.append, output_profile(5))
    infos[VISIBLE].publish(calibration(96, 72, zeros=3))
    infos[INFRARED].publish(calibration(50, 40, zeros=9))
    rig.spin(0.5)
    sent = send()
    assert rig.wait_for(lambda: rig.fused), process.text()
    assert rig.fused[-1].header == sent[0].header
    assert rig.wait_for(lambda: report)
    assert (report[-1].header, report[-1].width, report[-1].height) == (sent[0].header, 96, 72)
    assert not any(report[-1].d), "of the image that comes out, which is rectified"

    intake = SensorIntake(SensorConfig(**settings))
    intake.set_calibration(VISIBLE, calibration(96, 72))
    intake.set_calibration(INFRARED, calibration(50, 40))
    pair = intake.align(*sent)
    fuser = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), threads=1))
    assert np.array_equal(pixels(rig.fused[-1]), fuser.fuse(pair.visible, pair.infrared).image)


def test_the_fused_image_has_the_calibration_of_the_camera_whose_frame_it_has(start, tiny_checkpoint):
    _, rig = start(f"model:={tiny_checkpoint}", *FAST)
    report: list[CameraInfo] = []
    rig.node.create_subscription(CameraInfo, "/fusion_node/fused/camera_info", report.append, output_profile(5))
    info = rig.node.create_publisher(CameraInfo, "/visible/camera_info", output_profile(5))
    assert rig.wait_for(lambda: info.get_subscription_count() == 1 and rig.state() == "active", 60)
    rig.spin(0.5)
    grey = np.full((48, 64), 90, np.uint8)
    rig.fuse(np.repeat(grey[:, :, None], 3, 2), grey)
    rig.spin(0.5)
    assert not report, "nobody has said anything yet"
    info.publish(calibration(64, 48))
    rig.spin(0.5)
    rig.fuse(np.repeat(grey[:, :, None], 3, 2), grey)
    assert rig.wait_for(lambda: report)
    due = calibration(64, 48)
    due.header = rig.fused[-1].header
    assert report == [due]


def test_a_calibration_file_of_another_size_is_not_published_as_the_images(start, tiny_checkpoint, tmp_path):
    file = tmp_path / "camera.yaml"
    rows = {"camera": K, "rectification": EYE, "projection": (*K[:3], 0.0, *K[3:6], 0.0, *K[6:], 0.0)}
    said = {f"{name}_matrix": {"data": list(data)} for name, data in rows.items()}
    said |= {"distortion_coefficients": {"data": [0.0] * 5}, "distortion_model": "plumb_bob"}
    file.write_text(yaml.safe_dump({**said, "image_width": 160, "image_height": 120}), encoding="utf-8")
    process, rig = start(f"model:={tiny_checkpoint}", *FAST, f"visible_calibration:={file}")
    report: list[CameraInfo] = []
    rig.node.create_subscription(CameraInfo, "/fusion_node/fused/camera_info", report.append, output_profile(5))
    assert rig.wait_for(lambda: rig.state() == "active", 60), process.text()
    rig.spin(0.5)
    for width, height in ((64, 48), (160, 120)):
        grey = np.full((height, width), 90, np.uint8)
        rig.fuse(np.repeat(grey[:, :, None], 3, 2), grey)
    assert rig.wait_for(lambda: report)
    rig.spin(0.3)
    assert [(info.width, info.height) for info in report] == [(160, 120)]
    assert "visible_calibration is for 160 x 120 pixels, the images have 64 x 48" in process.text()


def test_latched_and_remapped_calibrations_are_heard_and_one_for_two_cameras_is_refused(start, tiny_checkpoint):
    """The images of both cameras lie in one namespace; their calibrations were published before the node came."""
    process, rig = start(f"model:={tiny_checkpoint}", *FAST, "rectify:=true", "-r visible/image:=/cam/rgb",
                         "-r infrared/image:=/cam/thermal")  # fmt: skip
    assert rig.wait_for(lambda: "a topic for each camera, got /cam/camera_info for both" in process.text(), 60)
    assert rig.state() == "unconfigured" and process.alive

    process, rig = start(f"model:={tiny_checkpoint}", *FAST, "rectify:=true", "autostart:=false",
                         "-r visible/camera_info:=infrared/camera_info",
                         "-r infrared/camera_info:=visible/camera_info")  # fmt: skip
    names = ("/infrared/camera_info", "/visible/camera_info")
    infos = [rig.node.create_publisher(CameraInfo, name, latched_profile()) for name in names]
    for info, size in zip(infos, ((64, 48), (32, 24)), strict=True):
        info.publish(calibration(*size))
    rig.spin(0.5)
    assert rig.wait_for(lambda: rig.state() == "unconfigured", 60), process.text()
    assert rig.change(1) and rig.change(3), process.text()
    assert rig.wait_for(lambda: all(info.get_subscription_count() for info in infos))
    rig.spin(1.5)
    before, grey = rig.counters(), np.full((48, 64), 90, np.uint8)
    rig.send(*rig.pair(np.repeat(grey[:, :, None], 3, 2), grey))
    assert rig.wait_for(lambda: dropped_since(before, rig.counters()) == {"no_calibration": 1})
    expected = "infrared camera must be for the size of its images, 64 x 48 pixels"
    assert rig.wait_for(lambda: expected in process.text()), process.text()


def test_pixels_without_a_value_are_filled_counted_and_logged_once(start, tiny_checkpoint):
    process, rig = start(f"model:={tiny_checkpoint}", *FAST, "threads:=1")
    rig.wait_until_active()
    y, x = np.mgrid[:48, :64]
    visible = np.stack((x * 3, y * 4, x + y), 2).astype(np.uint8)
    counts = (28600 + 20 * x + 10 * y).astype(np.uint16)
    kelvin = (counts * 0.01).astype(np.float32)
    counts[:, :8], kelvin[:, :8] = 0, np.nan
    fuser = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), threads=1))
    for number, (infrared, encoding) in enumerate(((counts, "mono16"), (kelvin, "32FC1")), 1):
        message, _ = rig.pair(visible, visible[..., 0])
        other = image(infrared, rig.now_ns, "thermal_frame", encoding)
        rig.send(message, other)
        assert rig.wait_for(lambda sent=message: rig.output_for(sent) is not None), process.text()
        pair = SensorIntake(SensorConfig()).align(message, other)
        assert pair.no_value > 0.1
        if number == 1:
            assert np.array_equal(pixels(rig.output_for(message)), fuser.fuse(pair.visible, pair.infrared).image)
        found = rig.settled()[INFRARED]["no_value"]
        assert found == {"images": number, "percent": round(100 * pair.no_value, 3)}
    message, _ = rig.pair(visible, visible[..., 0])
    before = rig.counters()
    rig.send(message, image(np.full_like(kelvin, np.nan), rig.now_ns, "thermal_frame", "32FC1"))
    assert rig.wait_for(lambda: dropped_since(before, rig.counters()) == {"bad_infrared": 1}), rig.counters()
    assert process.text().count("of the pixels have no value") == 1
    assert rig.wait_for(lambda: "must be one that has values" in process.text())


def test_contradicting_sensor_parameters_refuse_to_configure(start, tiny_checkpoint):
    process, rig = start(f"model:={tiny_checkpoint}", *FAST, "infrared_translation:=[1.0, 2.0]")
    assert rig.wait_for(lambda: "infrared_translation must be 3 numbers, got 2" in process.text(), 60), process.text()
    assert rig.state() == "unconfigured" and process.alive
