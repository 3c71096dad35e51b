"""The built-in localizer: accuracy of the shipped weights, network, checkpoints and voting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from textdifuse_ros.checkpoint import save_checkpoint
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.errors import CheckpointError, ConfigError, ImageError
from textdifuse_ros.localize.builtin import VOCABULARY, BuiltinLocalizer, working_size
from textdifuse_ros.localize.prompt import parse_prompt
from textdifuse_ros.localize.registry import make_localizer
from textdifuse_ros.localize.voting import group_votes
from textdifuse_ros.localize.weights import load_localizer, save_localizer
from textdifuse_ros.metrics.detection import match_boxes
from textdifuse_ros.networks.localizer import LocalizerNetwork, LocalizerNetworkConfig, fold_norms
from textdifuse_ros.scenes.config import DriveSceneConfig
from textdifuse_ros.scenes.drive import Frame, NightDrive

SMALL = LocalizerNetworkConfig(widths=(16, 16, 16), blocks=(1, 1, 1), neck=16)


@pytest.fixture(scope="module")
def localizer() -> BuiltinLocalizer:
    localizer = make_localizer(LocalizerConfig())
    assert isinstance(localizer, BuiltinLocalizer)
    return localizer


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Frames of a drive that is not in the training data."""
    drive = NightDrive(DriveSceneConfig(frames=6, rate_hz=1.0, seed=7))
    return [drive.frame(index) for index in (1, 4)]


def recall(localizer: BuiltinLocalizer, frames: list[Frame], kind: str, **blind: bool) -> float:
    """Recall of objects of at least 300 pixels at an IoU of 0.5."""
    truths = hits = 0
    for frame in frames:
        visible = np.zeros_like(frame.visible) if blind.get("visible") else frame.visible
        infrared = np.zeros_like(frame.infrared) if blind.get("infrared") else frame.infrared
        found = localizer.locate(visible, infrared, parse_prompt(kind)).instances
        boxes = [box for box in frame.boxes if box.label == kind]
        large = np.array([(frame.instances == box.instance).sum() >= 300 for box in boxes], bool)
        counts = match_boxes(
            np.array([item.box for item in found]).reshape(-1, 4),
            np.array([item.score for item in found]),
            np.array([(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes]).reshape(-1, 4),
            ~large,
        )
        truths, hits = truths + counts.truths, hits + counts.matches
    assert truths
    return hits / truths


def test_the_shipped_weights_find_persons_and_cars_by_night(localizer: BuiltinLocalizer, frames: list[Frame]) -> None:
    assert recall(localizer, frames, "person") >= 0.5
    assert recall(localizer, frames, "car") >= 0.5


def test_the_shipped_weights_find_persons_without_the_visible(localizer: BuiltinLocalizer, frames: list[Frame]) -> None:
    assert recall(localizer, frames, "person", visible=True) >= 0.4


def test_masks_cover_the_objects(localizer: BuiltinLocalizer, frames: list[Frame]) -> None:
    frame = frames[0]
    found = localizer.locate(frame.visible, frame.infrared, parse_prompt("cars:0.5; road"))
    labels = found.label_map()
    for phrase, label in ((1, 6), (2, 2)):
        mask, truth = labels == phrase, frame.labels == label
        assert (mask & truth).sum() / (mask | truth).sum() > 0.5
    assert sum(item.phrase == 2 for item in found.instances) == 1, "the road cannot be counted"
    assert {phrase.strength for phrase in found.phrases} == {0.5, 1.0}
    assert all(localizer.score <= item.score <= 1 for item in found.instances)
    assert [item.score for item in found.instances] == sorted((i.score for i in found.instances), reverse=True)


def test_objects_do_not_overlap(localizer: BuiltinLocalizer, frames: list[Frame]) -> None:
    found = localizer.locate(frames[0].visible, frames[0].infrared, parse_prompt("car, person")).instances
    assert len(found) > 1
    assert np.sum([item.mask for item in found], axis=0).max() == 1


@pytest.mark.parametrize("blind", ["visible", "infrared", "both"])
def test_a_blind_sensor_is_tolerated(localizer: BuiltinLocalizer, frames: list[Frame], blind: str) -> None:
    visible, infrared = (
        np.zeros_like(image) if blind in (name, "both") else image
        for name, image in (("visible", frames[0].visible), ("infrared", frames[0].infrared))
    )
    found = localizer.locate(visible, infrared, parse_prompt("person, car, bicycle"))
    assert found.size == infrared.shape
    if blind == "both":
        assert not any(item.mask.sum() > 0.2 * item.mask.size for item in found.instances)


def test_the_same_pair_gives_the_same_bytes(localizer: BuiltinLocalizer, frames: list[Frame]) -> None:
    one, other = (localizer.locate(frames[0].visible, frames[0].infrared, parse_prompt("car")) for _ in range(2))
    assert np.array_equal(one.instance_map(), other.instance_map())


def test_an_unknown_word_is_refused_with_the_known_ones(localizer: BuiltinLocalizer, frames: list[Frame]) -> None:
    with pytest.raises(ConfigError, match=r"person.*'giraffe'"):
        localizer.locate(frames[0].visible, frames[0].infrared, parse_prompt("giraffe"))


def test_an_empty_prompt_finds_nothing(localizer: BuiltinLocalizer, frames: list[Frame]) -> None:
    assert not localizer.locate(frames[0].visible, frames[0].infrared, parse_prompt(""))


def test_images_of_any_size_are_accepted(localizer: BuiltinLocalizer) -> None:
    for height, width in ((1, 1), (7, 300), (33, 20)):
        pair = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
        assert localizer.locate(*pair, parse_prompt("car")).size == (height, width)


def test_images_of_wrong_dtype_or_size_are_refused(localizer: BuiltinLocalizer) -> None:
    visible, infrared = np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.uint8)
    prompt = parse_prompt("car")
    with pytest.raises(ImageError, match="visible"):
        localizer.locate(visible.astype(np.float32), infrared, prompt)
    with pytest.raises(ImageError, match="infrared"):
        localizer.locate(visible, infrared[:16], prompt)


def test_the_vocabulary_is_in_the_order_of_the_channels() -> None:
    from textdifuse_ros.data.labels import CLASSES

    assert tuple(VOCABULARY) == CLASSES


def test_the_working_size_keeps_the_aspect_ratio() -> None:
    assert working_size(480, 640, 480 * 368) == (368, 480)
    rows, columns = working_size(200, 800, 480 * 368)
    assert rows % 16 == columns % 16 == 0 and 3.5 < columns / rows < 4.5


def test_folding_normalizations_does_not_change_the_output() -> None:
    torch.manual_seed(0)
    network = LocalizerNetwork(SMALL)
    visible, infrared = torch.rand(2, 3, 32, 48), torch.rand(2, 1, 32, 48)
    for _ in range(3):
        network(visible, infrared)  # updates the statistics of the normalizations
    with torch.no_grad():
        before = network.eval()(visible, infrared)
        after = fold_norms(network)(visible, infrared)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert before.distances.min() > 0 and before.logits.shape == (2, 11, 8, 12)


def test_thermal_contrast_and_level_hardly_matter() -> None:
    torch.manual_seed(0)
    network = LocalizerNetwork(SMALL).eval()
    visible, infrared = torch.zeros(1, 3, 32, 32), torch.rand(1, 1, 32, 32).square()
    with torch.no_grad():
        strong, faint = network(visible, infrared), network(visible, infrared * 0.25)
    assert (strong.logits - faint.logits).abs().mean() < 0.1 * strong.logits.std()


def test_a_checkpoint_round_trips(tmp_path: Path) -> None:
    network = LocalizerNetwork(SMALL).half().float().eval()
    save_localizer(tmp_path / "a.safetensors", network, {"made by": "the tests"})
    loaded, checkpoint = load_localizer(tmp_path / "a.safetensors")
    assert loaded.config == SMALL and checkpoint.provenance == {"made by": "the tests"}
    inputs = torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(*inputs).logits, network(*inputs).logits)


def test_weights_of_another_kind_or_size_are_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="kind"):
        BuiltinLocalizer(tiny_checkpoint)
    save_checkpoint(tmp_path / "a.safetensors", "localizer", {"classes": 11}, {"stem": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="fit"):
        BuiltinLocalizer(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="model"):
        BuiltinLocalizer("no_such_model")


def votes_for(boxes: list[tuple[int, int, int, int]], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and distances on a grid of cells of 4 pixels; boxes in cells, later ones in front."""
    probability = np.zeros((height, width), np.float32)
    distances = np.ones((4, height, width), np.float32)
    for x0, y0, x1, y1 in boxes:
        for row in range(y0, y1):
            for column in range(x0, x1):
                probability[row, column] = 0.9
                away = (column + 0.5 - x0, row + 0.5 - y0, x1 - column - 0.5, y1 - row - 0.5)
                distances[:, row, column] = np.array(away) * 4
    return probability, distances


def test_touching_objects_are_separated_by_their_votes() -> None:
    truths = [(2, 2, 8, 8), (8, 2, 14, 8), (3, 10, 6, 16)]
    found = group_votes(*votes_for(truths, 20, 20), cell=4)
    assert sorted(tuple(round(edge / 4) for edge in item.box) for item in found) == sorted(truths)
    assert sum(len(item.cells) for item in found) == 36 + 36 + 18
    assert all(item.score == pytest.approx(0.9) for item in found)


def test_a_wrong_vote_within_an_object_adds_no_object() -> None:
    probability, distances = votes_for([(2, 2, 12, 12)], 16, 16)
    distances[:, 5, 5] = 3.0
    (found,) = group_votes(probability, distances, cell=4)
    assert len(found.cells) == 100
    assert group_votes(np.zeros((4, 4), np.float32), np.ones((4, 4, 4), np.float32), cell=4) == []
