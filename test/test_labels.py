"""The localizer's labels: CamVid, RoadScene's boxes, synthetic thermal images, label packs and their crops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_images import labeled_street

from textdifuse_ros.data.label_pack import LabelBatches, LabelPack, box_distances, write_label_pack
from textdifuse_ros.data.label_thermal import synthesize_thermal
from textdifuse_ros.data.labels import (
    BICYCLE,
    CAR,
    CLASSES,
    PERSON,
    RIDER,
    STUFF,
    THINGS,
    UNKNOWN,
    allowed_classes,
    camvid_items,
    label_from_boxes,
    read_boxes,
    roadscene_items,
)
from textdifuse_ros.errors import FileError
from textdifuse_ros.train.localizer_items import drive_items
from textdifuse_ros.train.pseudo_labels import sure_codes

SKY, ROAD = CLASSES.index("sky"), CLASSES.index("road")


@pytest.fixture(scope="module")
def label_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.pack"
    items = [labeled_street(n) for n in range(3)] + [labeled_street(9, "roadscene/", infrared=True)]
    assert write_label_pack(path, items) == 4
    return path


def test_every_code_allows_its_classes() -> None:
    table = allowed_classes()
    assert np.array_equal(np.flatnonzero(table[RIDER]), [PERSON, BICYCLE])
    assert not table[STUFF, list(THINGS)].any() and table[STUFF].sum() == len(CLASSES) - len(THINGS)
    assert table[UNKNOWN].all()
    assert np.array_equal(table[: len(CLASSES)], np.eye(len(CLASSES), dtype=bool))


def test_a_camvid_bicyclist_becomes_a_person_and_a_bicycle(tmp_path: Path) -> None:
    labels = np.full((60, 80), 3, np.uint8)
    labels[10:50, 30:50] = 10  # a bicyclist
    labels[0:5] = 11  # unlabeled
    labels[30:40, 60:63] = 8  # a sliver of a car behind a pole: its extent is unknown
    for folder, image in (("images", np.zeros((60, 80, 3), np.uint8)), ("labels", labels)):
        (tmp_path / "camvid/train" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "camvid/train" / folder / "a.png"), image)
    (item,) = camvid_items(tmp_path, "train")
    assert (item.codes[10:28, 30:50] == PERSON).all() and (item.codes[36:50, 30:50] == BICYCLE).all()
    assert (item.codes[29:35, 30:50] == RIDER).all() and (item.codes[:5] == UNKNOWN).all()
    by_code = {int(item.codes[item.instances == n][0]): item.boxes[n - 1] for n in (1, 2, 3)}
    assert by_code[PERSON].tolist() == [30, 10, 50, 50]
    assert by_code[BICYCLE].tolist() == [30, 26, 50, 50]
    assert np.isnan(by_code[CAR]).all()


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="camvid"):
        next(camvid_items(tmp_path, "train"))
    with pytest.raises(FileError, match="roadscene"):
        next(roadscene_items(tmp_path))


def test_boxes_become_masks_inside_and_stuff_outside() -> None:
    visible = np.full((80, 100, 3), 90, np.uint8)
    infrared = np.full((80, 100), 60, np.uint8)
    visible[30:60, 40:52], infrared[30:60, 40:52] = (200, 40, 40), 220
    item = label_from_boxes("x", visible, infrared, [("person", (36, 26, 56, 64)), ("dog", (70, 40, 90, 60))])
    truth = np.zeros((80, 100), bool)
    truth[30:60, 40:52] = True
    found = item.codes == PERSON
    assert (found & truth).sum() / (found | truth).sum() > 0.8
    assert (item.codes[40:60, 70:90] == UNKNOWN).all()
    outside = np.ones((80, 100), bool)
    outside[26:64, 36:56] = outside[40:60, 70:90] = False
    assert (item.codes[outside] == STUFF).all()
    assert item.boxes.tolist() == [[36, 26, 56, 64]]


@pytest.mark.parametrize("line", ["car 1 2 3", "car 1 2 x 4", "car nan 2 3 4", "car 5 2 3 4", "car 1 2 inf 4"])
def test_a_malformed_or_empty_box_is_rejected_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text(f"person 1 2 3.5 4\n\n{line}\n", encoding="utf-8")
    with pytest.raises(FileError, match="line 3"):
        read_boxes(path)


def test_a_synthetic_thermal_image_depends_only_on_its_generator() -> None:
    item = labeled_street(0)
    visible = item.visible.astype(np.float32) / 255

    def thermal(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return synthesize_thermal(visible, item.codes, item.instances, rng)

    assert np.array_equal(thermal(1), thermal(1))
    assert not np.array_equal(thermal(1), thermal(2))
    assert thermal(1).dtype == np.float32 and thermal(1).min() >= 0 and thermal(1).max() <= 1


def test_synthetic_persons_are_mostly_warm_and_skies_cold() -> None:
    item = labeled_street(0)
    visible = item.visible.astype(np.float32) / 255
    warm = cold = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        heat = synthesize_thermal(visible, item.codes, item.instances, rng)
        person, road, sky = (heat[item.codes == code].mean() for code in (PERSON, ROAD, SKY))
        warm += person > road
        cold += sky < road
    assert warm > 28 and cold > 28
    assert warm < 40, "if persons were always warm, a network would learn nothing but warmth"


def test_a_label_pack_returns_the_written_images(label_pack: Path) -> None:
    pack = LabelPack(label_pack)
    visible_only, pair = pack.entries[0], pack.entries[3]
    planes = pack.planes(visible_only)
    assert np.array_equal(planes[..., :3], labeled_street(0).visible)
    assert np.array_equal(planes[..., 4], labeled_street(0).codes)
    assert np.array_equal(visible_only.boxes, labeled_street(0).boxes)
    assert pair.infrared and not visible_only.infrared
    assert np.array_equal(pack.planes(pair)[..., 3], labeled_street(9, infrared=True).infrared)


def test_a_truncated_label_pack_is_rejected(label_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pack").write_bytes(label_pack.read_bytes()[:-1])
    (tmp_path / "a.pack.json").write_bytes(label_pack.with_suffix(".pack.json").read_bytes())
    with pytest.raises(FileError, match="bytes long"):
        LabelPack(tmp_path / "a.pack")


def test_a_label_pack_preserves_unknown_extents(tmp_path: Path) -> None:
    item = labeled_street(0)
    boxes = item.boxes.copy()
    boxes[1] = np.nan
    write_label_pack(tmp_path / "a.pack", [replace(item, boxes=boxes)])
    (entry,) = LabelPack(tmp_path / "a.pack").entries
    assert np.isnan(entry.boxes[1]).all() and np.array_equal(entry.boxes[0], boxes[0])


def test_a_label_batch_depends_only_on_seed_and_number(label_pack: Path) -> None:
    batches = LabelBatches(label_pack, 64, 3, seed=5, first=0, count=3)
    resumed = LabelBatches(label_pack, 64, 3, seed=5, first=2, count=1)
    for expected, actual in zip(batches[2], resumed[0], strict=True):
        assert torch.equal(expected.nan_to_num(-1.0), actual.nan_to_num(-1.0))
    assert not torch.equal(batches[1].visible, batches[2].visible)
    with pytest.raises(IndexError):
        resumed[1]


def test_the_boxes_of_a_crop_match_its_codes(label_pack: Path) -> None:
    """Inside the box of a cell, most pixels have the code of the cell."""
    batches = LabelBatches(label_pack, 64, 8, seed=0, first=0, count=2)
    checked = 0
    for batch in (batches[0], batches[1]):
        for codes, boxes in zip(batch.codes.numpy(), batch.boxes.numpy(), strict=True):
            for row, column in zip(*np.nonzero(~np.isnan(boxes[0])), strict=True):
                left, up, right, down = boxes[:, row, column]
                y, x = row * 4 + 2, column * 4 + 2
                code = codes[y, x]
                assert code in THINGS
                inner = codes[
                    round(y - up) + 2 : max(round(y + down) - 2, y + 1), round(x - left) + 2 : round(x + right) - 2
                ]
                assert inner.size == 0 or (inner == code).mean() > 0.9
                checked += 1
    assert checked > 100


def test_box_distances_of_an_example() -> None:
    instances = np.zeros((16, 16), np.uint8)
    instances[4:12, 4:8], instances[12:, 12:] = 1, 2
    boxes = np.array([(4, 4, 8, 12), (np.nan,) * 4], np.float32)
    distances = box_distances(instances, boxes)
    assert distances.shape == (4, 4, 4)
    assert distances[1, 1].tolist() == [2, 2, 2, 6]
    assert distances[2, 1].tolist() == [2, 6, 2, 2]
    assert np.isnan(distances[3, 3]).all() and np.isnan(distances[0, 0]).all()
    assert (~np.isnan(distances[..., 0])).sum() == 2


def test_a_drive_yields_correct_labels_by_day_and_night() -> None:
    day, night = drive_items(1000, 2)
    assert night.night and not day.night
    assert night.visible.mean() < day.visible.mean()
    assert PERSON in day.codes or CAR in day.codes
    for number, box in enumerate(day.boxes, 1):
        rows, columns = np.nonzero(day.instances == number)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == tuple(box)


def test_only_confident_predictions_become_pseudo_labels() -> None:
    probability = np.zeros((len(CLASSES), 1, 3), np.float32)
    probability[ROAD, 0, 0], probability[ROAD, 0, 1], probability[PERSON, 0, 2] = 0.9, 0.5, 0.7
    assert sure_codes(probability)[0].tolist() == [ROAD, UNKNOWN, UNKNOWN]


def test_training_pairs_exclude_neighbors_of_test_frames(data_folder: Path) -> None:
    names = {item.name for item in roadscene_items(data_folder)}
    near = (data_folder / "roadscene/train_near_test.txt").read_text(encoding="utf-8").split()
    assert names and not names & {f"roadscene/{name}" for name in near}
