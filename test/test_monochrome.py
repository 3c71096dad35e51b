"""A monochrome visible camera: the fused image is grey, exactly."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_makers import PERIOD, START, image, images, scene
from turning_camera import drive

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.cli.main import main
from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.image.grey import is_grey
from textdifuse_ros.image.intake import AlignedPair
from textdifuse_ros.runtime.engine import DirectBackend, FusionRequest
from textdifuse_ros.runtime.processor import PairProcessor

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def fuser(tiny_text_checkpoint: Path) -> Fuser:
    return Fuser.from_config(FuserConfig(model=str(tiny_text_checkpoint), device="cpu", threads=1))


def grey(visible: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)


def objects(shape: tuple[int, ...]) -> Emphasis:
    strengths = np.zeros(shape, np.float32)
    strengths[10:30, 20:40] = 1.5
    return Emphasis(strengths)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.75])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_grey_visible_image_is_fused_to_a_grey_one(fuser: Fuser, pair: Pair, text: bool, scale: float, bits: int):
    visible, infrared = grey(pair[0]), pair[1]
    visible = visible if bits == 8 else visible.astype(np.uint16) * 257
    request = FusionRequest(1, "ddim", 0, scale, keep_plain=True)
    result = DirectBackend(fuser).fuse(visible, infrared, request, objects(infrared.shape) if text else None)
    assert is_grey(result.image) and result.image.std() > 1
    if text:
        assert result.plain is not None and is_grey(result.plain)
        assert not np.array_equal(result.image, result.plain)


def test_a_single_pixel_of_color_makes_the_image_a_color_one(fuser: Fuser, pair: Pair):
    visible = grey(pair[0])
    visible[7, 9, 0] ^= 1
    assert not is_grey(visible)
    assert not is_grey(fuser.fuse(visible, pair[1]).image)


def test_a_grey_image_without_its_counterpart_is_restored_to_a_grey_one(fuser: Fuser, pair: Pair):
    assert is_grey(fuser.restore(visible=grey(pair[0])).image)
    assert is_grey(fuser.restore(infrared=pair[1]).image)
    assert not is_grey(fuser.restore(visible=pair[0]).image)


def test_a_camera_that_loses_its_color_leaves_none_in_the_video(fuser: Fuser):
    """As a camera does that switches to its night mode."""
    processor, request = PairProcessor(DirectBackend(fuser)), FusionRequest(1, "ddim", 0, keep_plain=True)
    steadied = []
    for number, (visible, infrared) in enumerate(drive(1)):
        shown = visible if number < 2 else grey(visible)
        result = processor.process(AlignedPair(shown, infrared), request, video=True, stamp=number / 10)
        assert is_grey(result.image) == (number >= 2)
        steadied.append(float(result.provenance["video"]))
    assert steadied[2] > 0, "the first grey image was steadied against a color one"


@pytest.mark.parametrize("text", [(), ("--text", "this", "--localizer", "fixed", "--regions", "20 10 30 25")])
def test_a_recording_of_a_mono8_camera_is_fused_to_grey_images(tmp_path: Path, tiny_text_checkpoint: Path, text):
    with BagWriter(tmp_path / "in") as bag:
        for index in range(3):
            visible, infrared = scene(index)
            stamp = START + index * PERIOD
            for topic, pixels, encoding in (("/cam/image_mono", visible[..., 0], "mono8"), ("/ir", infrared, "mono16")):
                bag.add_topic(topic, IMAGE_TYPE)
                bag.write_raw(topic, stamp, image(np.ascontiguousarray(pixels), stamp, "camera", encoding))
    flags = [
        "--visible",
        "/cam/image_mono",
        "--infrared",
        "/ir",
        "--model",
        str(tiny_text_checkpoint),
        "--video",
    ]
    assert (
        main(["bag", str(tmp_path / "in"), str(tmp_path / "out"), "--steps", "1", "--threads", "1", *flags, *text]) == 0
    )
    fused = [item.data.reshape(48, 64, 3) for item in images(tmp_path / "out")]
    assert len(fused) == 3 and all(is_grey(pixels) and pixels.std() > 1 for pixels in fused)
