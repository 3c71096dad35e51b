"""Training of the built-in localizer: its losses by hand, it learns, it resumes to the bit; and how it is judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_images import labeled_street

from textdifuse_ros.cli.main import main
from textdifuse_ros.config.training import LocalizerTrainConfig
from textdifuse_ros.data.label_pack import LabelBatch, LabelBatches, write_label_pack
from textdifuse_ros.data.labels import CAR, PERSON, RIDER, STUFF, UNKNOWN, allowed_classes
from textdifuse_ros.errors import ConfigError, TextDifuseError
from textdifuse_ros.evaluate.localization import Sample, camvid_overlaps, count_hits, find_objects, mask_overlaps
from textdifuse_ros.localize.base import Instance, Localization
from textdifuse_ros.localize.prompt import Prompt
from textdifuse_ros.localize.weights import load_localizer, save_localizer
from textdifuse_ros.metrics.detection import box_ious, class_ious, confusion_matrix, match_boxes
from textdifuse_ros.networks.localizer import LocalizerNetwork, LocalizerNetworkConfig
from textdifuse_ros.train.localizer_loss import LocalizerLoss, box_loss, dice, set_cross_entropy
from textdifuse_ros.train.localizer_task import localizer_trainer
from textdifuse_ros.train.state import WEIGHTS

CONFIG = LocalizerTrainConfig(
    steps=4, warm_up=1, crop=32, crops=2, workers=0, log_every=2, save_every=100, precision="float32"
)
SIZES = LocalizerNetworkConfig(widths=(16, 16, 16), blocks=(1, 1, 1), neck=16)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.pack"
    write_label_pack(path, [labeled_street(n, "roadscene/", infrared=True) for n in range(3)])
    return path


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_localizer(folder / WEIGHTS)[1].tensors


def test_a_code_costs_the_probability_outside_its_classes() -> None:
    """By hand: with p = (.5, .3, .2) a code of the first two classes costs -log .8, one of all classes nothing."""
    logs = torch.log(torch.tensor([0.5, 0.3, 0.2])).view(1, 3, 1, 1)
    allowed = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    for code, expected in ((0, 0.5), (1, 0.8), (2, 1.0)):
        loss = set_cross_entropy(logs, torch.full((1, 1, 1), code), allowed, torch.ones(3))
        assert loss.item() == pytest.approx(-np.log(expected), abs=1e-6)
    both = set_cross_entropy(logs.expand(1, 3, 1, 2), torch.tensor([[[0, 1]]]), allowed, torch.tensor([3.0, 1, 1]))
    assert both.item() == pytest.approx((-3 * np.log(0.5) - np.log(0.8)) / 4)


def test_the_box_loss_is_zero_only_for_exact_boxes() -> None:
    truth = torch.full((1, 4, 2, 2), float("nan"))
    truth[0, :, 0, 0] = torch.tensor([4.0, 4.0, 4.0, 4.0])
    fit = torch.full((1, 4, 2, 2), 4.0)
    assert box_loss(fit, truth).item() == pytest.approx(0)
    assert box_loss(fit, torch.full_like(truth, float("nan"))).item() == 0
    # Half the width: overlap and hull are 32 and 64, so GIoU is one half.
    half = fit.clone()
    half[:, 0] = 1e-6
    assert box_loss(half, truth).item() == pytest.approx(0.5, abs=1e-4)


def test_undecided_pixels_do_not_count_for_the_dice_loss() -> None:
    codes = torch.tensor([[[PERSON, STUFF, RIDER, UNKNOWN]]])
    probability = torch.zeros(1, 11, 1, 4)
    probability[0, PERSON] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert dice(probability, codes).item() == pytest.approx(0)
    probability[0, PERSON, 0, 1] = 1.0
    assert dice(probability, codes).item() == pytest.approx(1 - 3 / 4)


def test_training_lowers_the_loss(pack: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=40, crops=4, crop=64, learning_rate=5e-3, warm_up=5)
    trainer = localizer_trainer(config, tmp_path, pack, sizes=SIZES)
    batch = LabelBatches(pack, 64, 8, seed=99, first=0, count=1)[0]

    def loss() -> float:
        with torch.no_grad():
            return LocalizerLoss("cpu")(trainer.networks(batch.visible, batch.infrared), batch.codes, batch.boxes)[
                "loss"
            ].item()

    first = loss()
    assert trainer.run()
    assert loss() < 0.8 * first
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(2, 41, 2))
    _, checkpoint = load_localizer(tmp_path / WEIGHTS)
    assert checkpoint.provenance["history"][0]["done"] == 40


def test_an_interrupted_and_resumed_run_gives_the_same_bits(pack: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    localizer_trainer(CONFIG, whole, pack, sizes=SIZES).run()
    trainer = localizer_trainer(CONFIG, parts, pack, sizes=SIZES)
    batches = LabelBatches(pack, CONFIG.crop, CONFIG.crops, CONFIG.seed, 0, 2)
    for index in range(2):
        trainer.update(batches[index])
    trainer.save()
    resumed = localizer_trainer(CONFIG, parts, pack)
    assert resumed.step == 2
    resumed.run()
    one, other = tensors(whole), tensors(parts)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_state_of_another_run_is_refused(pack: Path, tmp_path: Path) -> None:
    localizer_trainer(CONFIG, tmp_path / "run", pack, sizes=SIZES).run()
    with pytest.raises(ConfigError, match="learning_rate"):
        localizer_trainer(replace(CONFIG, learning_rate=1e-5), tmp_path / "run", pack)
    write_label_pack(tmp_path / "other.pack", [labeled_street(5)])
    with pytest.raises(ConfigError, match="pack"):
        localizer_trainer(CONFIG, tmp_path / "run", tmp_path / "other.pack")


def test_a_run_starts_from_weights_and_keeps_their_history(pack: Path, tmp_path: Path) -> None:
    localizer_trainer(CONFIG, tmp_path / "a", pack, sizes=SIZES).run()
    localizer_trainer(replace(CONFIG, steps=2), tmp_path / "b", pack, tmp_path / "a" / WEIGHTS).run()
    network, checkpoint = load_localizer(tmp_path / "b" / WEIGHTS)
    assert network.config == SIZES
    assert [stage["done"] for stage in checkpoint.provenance["history"]] == [4, 2]


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(pack: Path, tmp_path: Path) -> None:
    trainer = localizer_trainer(CONFIG, tmp_path, pack, sizes=SIZES)
    before = {name: p.clone() for name, p in trainer.networks.named_parameters()}
    batch = LabelBatches(pack, 32, 2, 0, 0, 1)[0]
    with pytest.raises(TextDifuseError, match="finite"):
        trainer.update(LabelBatch(batch.visible * float("nan"), *batch[1:]))
    assert all(torch.equal(before[name], p) for name, p in trainer.networks.named_parameters())


def test_the_command_line_trains(pack: Path, tmp_path: Path) -> None:
    save_localizer(tmp_path / "start.safetensors", LocalizerNetwork(SIZES), {})
    words = ["train", "localizer", "--pack", pack, "--run", tmp_path / "run", "--start", tmp_path / "start.safetensors"]
    more = ["--steps", 1, "--crop", 32, "--crops", 2, "--workers", 0, "--device", "cpu"]
    assert main([str(word) for word in [*words, *more]]) == 0
    assert (tmp_path / "run" / WEIGHTS).is_file()


def test_overlaps_by_hand() -> None:
    table = box_ious(np.array([[0, 0, 2, 2], [5, 5, 5, 5]]), np.array([[1, 0, 3, 2], [0, 0, 2, 2]]))
    assert table.tolist() == [[pytest.approx(1 / 3), 1.0], [0.0, 0.0]]


def test_every_true_box_is_hit_once() -> None:
    truths = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [50, 0, 60, 10]])
    found = np.array([[0, 0, 10, 9], [1, 0, 10, 10], [20, 4, 30, 14], [50, 0, 60, 10]])
    scores = np.array([0.5, 0.9, 0.8, 0.7])
    hits = match_boxes(found, scores, truths)
    assert (hits.truths, hits.detections, hits.matches) == (3, 4, 2)
    ignored = match_boxes(found, scores, truths, np.array([False, False, True]))
    assert (ignored.truths, ignored.detections, ignored.matches) == (2, 3, 1)
    assert ignored.recall == 0.5 and ignored.precision == pytest.approx(1 / 3)
    nothing = match_boxes(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)))
    assert np.isnan(nothing.recall) and np.isnan(nothing.precision)


def test_class_overlaps_by_hand() -> None:
    table = confusion_matrix(np.array([[0, 0, 1, 7]]), np.array([[0, 1, 1, 0]]), truths=3, classes=2)
    assert table.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert class_ious(table).tolist() == [0.5, 0.5]


class _Oracle:
    """Finds a given box, if it may see the sensor that shows it."""

    name = "oracle"
    vocabulary = None

    def locate(self, visible: np.ndarray, infrared: np.ndarray, prompt: Prompt) -> Localization:
        mask = infrared > 200
        phrase = next(p.index for p in prompt.phrases if p.text == "person")
        found = (Instance(mask, (10, 10, 20, 30), 0.9, phrase),) if mask.any() else ()
        return Localization(found, infrared.shape, prompt.phrases)

    def close(self) -> None: ...


def test_objects_are_counted_by_sensor_and_height() -> None:
    infrared = np.zeros((40, 40), np.uint8)
    infrared[10:30, 10:20] = 255
    box = (10.0, 10.0, 20.0, 30.0)
    labels = np.where(infrared > 0, PERSON, 0).astype(np.uint8)
    labels[30:40, 10:20] = PERSON  # half as much again, which the oracle does not see
    visible = np.zeros((40, 40, 3), np.uint8)
    samples = [Sample(visible, infrared, [("person", box, True), ("car", box, True)], labels)]
    found = find_objects(_Oracle(), samples)
    both = count_hits(samples, found)
    assert mask_overlaps(samples, found)["person"] == pytest.approx(2 / 3)
    assert both["person"] == (1, 1, 1) and both["car"] == (1, 0, 0) and both["bicycle"] == (0, 0, 0)
    assert count_hits(samples, find_objects(_Oracle(), samples, (True, False)))["person"] == (1, 0, 0)
    assert count_hits(samples, found, least_height=25)["person"] == (0, 0, 0)


def test_camvid_is_judged_without_infrared(tmp_path: Path) -> None:
    """A localizer that calls everything a car: its overlap is the share of cars, a rider found as nothing is missed."""

    class Cars:
        def classes(self, visible: np.ndarray, infrared: np.ndarray) -> object:
            assert not infrared.any()
            probability = np.zeros((11, *infrared.shape), np.float32)
            probability[CAR] = 1
            return type("Classes", (), {"probability": probability})()

    labels = np.zeros((8, 10), np.uint8)
    labels[:4], labels[4], labels[5] = CAR, 10, 11
    for folder, image in (("images", np.zeros((8, 10, 3), np.uint8)), ("labels", labels)):
        (tmp_path / "camvid/val" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "camvid/val" / folder / "a.png"), image)
    overlaps = camvid_overlaps(Cars(), tmp_path, "val")  # type: ignore[arg-type]
    assert overlaps["car"] == pytest.approx(4 / 7) and overlaps["bicycle"] == 0
    assert allowed_classes()[RIDER, PERSON]
