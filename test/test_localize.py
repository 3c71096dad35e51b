"""Localizations, the localizer without weights, and the files and images made from localizations."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.errors import CheckpointError, ConfigError, FileError, ImageError
from textdifuse_ros.image.files import write_png
from textdifuse_ros.localize.base import Instance, Localization, mask_box
from textdifuse_ros.localize.coco import CocoDocument, run_lengths
from textdifuse_ros.localize.instances import class_instances, split_regions
from textdifuse_ros.localize.overlay import draw_overlay, phrase_color
from textdifuse_ros.localize.prompt import Prompt, parse_prompt
from textdifuse_ros.localize.registry import make_localizer

SIZE = (60, 80)
IMAGES = np.full((*SIZE, 3), 50, np.uint8), np.full(SIZE, 60, np.uint8)


def disc(x: float, y: float, radius: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.hypot(columns - x, rows - y) <= radius


def instance(mask: np.ndarray, phrase: int, score: float = 0.9, track: int = 0) -> Instance:
    return Instance(mask, mask_box(mask), score, phrase, track)


def fixed(regions: str | Path, text: str) -> Localization:
    return make_localizer(LocalizerConfig(localizer="fixed", regions=str(regions))).locate(*IMAGES, parse_prompt(text))


# The maps.


def test_where_masks_overlap_all_maps_show_the_higher_score() -> None:
    found = Localization(
        (instance(disc(20, 20, 10), 1, 0.9, 7), instance(disc(28, 20, 10), 2, 0.6, 9)),
        SIZE,
        parse_prompt("person:1.5, car:-0.5").phrases,
    )
    labels, numbers, strength = found.label_map(), found.instance_map(), found.strength_map()
    assert (labels.dtype, numbers.dtype, strength.dtype) == (np.uint8, np.uint16, np.float32)
    for y, x, label, number, value in ((20, 24, 1, 7, 1.5), (20, 36, 2, 9, -0.5), (50, 70, 0, 0, 0.0)):
        assert (labels[y, x], numbers[y, x], strength[y, x]) == (label, number, value)
    assert np.array_equal(labels > 0, disc(20, 20, 10) | disc(28, 20, 10))


@pytest.mark.parametrize("turned", [False, True])
def test_at_equal_scores_the_smaller_object_is_on_top(turned: bool) -> None:
    pieces = ["person 20 10 30 40", "car 10 5 60 50"]
    found = fixed("; ".join(pieces[::-1] if turned else pieces), "car, person" if turned else "person, car")
    person = 2 if turned else 1
    assert np.count_nonzero(found.label_map() == person) == 10 * 30
    assert np.count_nonzero(found.label_map() == 3 - person) == 50 * 45 - 10 * 30


def test_the_general_strength_multiplies_and_is_clipped() -> None:
    found = Localization((instance(disc(20, 20, 10), 1),), SIZE, parse_prompt("person:1.5").phrases)
    assert found.strength_map(0.5).max() == 0.75
    assert found.strength_map(2.0).max() == 2.0
    assert found.strength_map(-1.0).min() == -1.0
    assert not found.strength_map(0.0).any()


def test_without_tracks_instances_are_numbered_in_order() -> None:
    found = Localization((instance(disc(10, 10, 5), 1), instance(disc(40, 40, 5), 1)), SIZE, ())
    assert found.instance_map()[10, 10] == 1
    assert found.instance_map()[40, 40] == 2


def test_without_objects_all_maps_are_empty() -> None:
    found = Localization((), SIZE, parse_prompt("car").phrases)
    assert not found
    assert not (found.label_map().any() or found.instance_map().any() or found.strength_map().any())


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match=r"must be bool \[60, 80\], got bool \[20, 20\]"):
        Localization((instance(np.ones((20, 20), bool), 1),), SIZE, ())


# Objects from class probabilities.


def probabilities(*masks: np.ndarray, certainty: float = 0.9) -> np.ndarray:
    """Maps of a background class and of one class per mask."""
    values = np.full((len(masks) + 1, *masks[0].shape), (1 - certainty) / len(masks), np.float32)
    background = ~np.logical_or.reduce(masks)
    for part, mask in zip(values, (background, *masks), strict=True):
        part[mask] = certainty
    return values


def test_touching_objects_are_divided_at_the_neck() -> None:
    size = (100, 200)
    touching = disc(50, 50, 25, size) | disc(93, 50, 20, size)
    pieces = split_regions(touching)
    assert len(pieces) == 2
    assert sum(piece.astype(int) for piece in pieces).max() == 1
    assert np.array_equal(np.logical_or(*pieces), touching)
    assert pieces[0][50, 40] and pieces[1][50, 100]
    assert np.count_nonzero(pieces[0] & ~disc(50, 50, 25, size)) < 0.02 * touching.sum()


def test_a_long_object_of_even_width_stays_whole() -> None:
    bar = np.zeros((60, 200), bool)
    bar[20:40, 10:190] = True
    assert len(split_regions(bar)) == 1


def test_given_centers_divide_a_region_of_even_width() -> None:
    bar = np.zeros((60, 200), bool)
    bar[20:40, 10:190] = True
    centers = np.zeros(bar.shape, np.float32)
    for x in (50, 150):
        centers[30, x] = 1.0
    centers = cv2.GaussianBlur(centers, (0, 0), 6)
    pieces = split_regions(bar, centers=centers / centers.max())
    assert [mask_box(piece)[::2] for piece in pieces] == [(10, 101), (101, 190)]


def test_regions_become_instances_with_score_box_and_phrase() -> None:
    things = disc(20, 20, 8) | disc(60, 40, 8)
    found = class_instances(probabilities(things, disc(20, 50, 6)), {1: 2, 2: 1})
    assert [item.phrase for item in found] == [1, 2, 2]
    assert found[0].box == mask_box(disc(20, 50, 6))
    assert all(item.score == pytest.approx(0.9) for item in found)


def test_small_and_uncertain_regions_are_dropped() -> None:
    maps = probabilities(disc(20, 20, 8) | disc(60, 40, 1), certainty=0.6)
    assert len(class_instances(maps, {1: 1})) == 1
    assert class_instances(maps, {1: 1}, threshold=0.7) == []


def test_an_uncountable_class_is_one_object_and_adjacent_classes_of_a_phrase_join() -> None:
    left, right = disc(20, 20, 8), disc(60, 40, 8)
    (road,) = class_instances(probabilities(left | right), {1: 1}, countable=frozenset())
    assert np.array_equal(road.mask, left | right)
    car, bus = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    car[20:40, 10:30], bus[20:40, 30:50] = True, True
    (vehicle,) = class_instances(probabilities(car, bus), {1: 1, 2: 1})
    assert np.array_equal(vehicle.mask, car | bus)


# Regions given by hand.


def test_boxes_are_matched_to_phrases_by_name() -> None:
    found = fixed("person 10 20 30 50; red car 40 10 70.4 30; 0 0 5 5", "red car, person, dog")
    assert {(item.phrase, item.box) for item in found.instances} == {
        (1, (40, 10, 70, 30)),
        (1, (0, 0, 5, 5)),
        (2, (10, 20, 30, 50)),
    }
    assert np.count_nonzero(found.label_map() == 2) == 20 * 30


def test_boxes_match_plurals_and_names_with_an_article() -> None:
    found = fixed("person 10 20 30 50; the Car 40 10 70 30; two buses 0 0 5 5", "people, cars, two buses, van")
    assert [(item.phrase, item.box[0]) for item in found.instances] == [(1, 10), (2, 40), (3, 0)]


def test_boxes_are_clipped_to_the_image_and_those_outside_are_dropped() -> None:
    (item,) = fixed("-5 -5 10 10; 100 100 120 120", "car").instances
    assert item.box == (0, 0, 10, 10)


def test_boxes_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "boxes.txt").write_text("car 1 2 30 40\n\nperson 50 2 60 40\n")
    assert len(fixed(tmp_path / "boxes.txt", "person").instances) == 1


def test_a_label_image_gives_its_regions_and_white_the_first_phrase(tmp_path: Path) -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[disc(20, 20, 8)], labels[disc(60, 40, 8)], labels[disc(20, 50, 4)] = 1, 2, 2
    write_png(tmp_path / "labels.png", labels)
    found = fixed(tmp_path / "labels.png", "person, car")
    assert np.array_equal(found.label_map(), labels)
    assert [item.phrase for item in found.instances] == [1, 2, 2]
    labels[labels > 0] = 255
    write_png(tmp_path / "white.png", labels)
    assert {item.phrase for item in fixed(tmp_path / "white.png", "person, car").instances} == {1}


def test_invalid_regions_are_refused(tmp_path: Path) -> None:
    for regions in ("person 10 20 30", "10 20 x 50", "50 20 30 50", "1 2 nan 4"):
        with pytest.raises(ConfigError, match="a box in regions must be"):
            fixed(regions, "person")
    with pytest.raises(ConfigError, match="regions must be given"):
        fixed("", "person")
    with pytest.raises(FileError, match="none"):
        fixed(tmp_path / "none.txt", "person")
    with pytest.raises(FileError, match="none"):
        fixed(tmp_path / "none.png", "person")
    write_png(tmp_path / "small.png", np.ones((20, 20), np.uint8))
    with pytest.raises(ImageError, match=r"as large as the image \(80 x 60 pixels\), got 20 x 20"):
        fixed(tmp_path / "small.png", "person")


# The registry, and missing weights.


def test_missing_weights_are_reported_when_the_localizer_is_created(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TEXTDIFUSE_MODELS", str(tmp_path))
    with pytest.raises(CheckpointError, match=f"nothing in {tmp_path}"):
        make_localizer(LocalizerConfig(localizer="builtin", localizer_model="nowhere"))
    for name, parameter in (("detect_segment", "detector"), ("sam3", "segmenter")):
        with pytest.raises(ConfigError, match=rf"{parameter} must be a folder with pretrained weights.*docs/text\.md"):
            make_localizer(LocalizerConfig(localizer=name))
        with pytest.raises(CheckpointError, match=rf"{tmp_path}/owl.*docs/text\.md says what to fetch"):
            make_localizer(LocalizerConfig(localizer=name, **{parameter: "owl"}))


def test_an_unknown_localizer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="one of builtin, detect_segment, sam3, fixed"):
        make_localizer(LocalizerConfig(localizer="yolo"))


# Written files.


def test_run_lengths_are_in_column_order_and_start_with_zeros() -> None:
    mask = np.array([[0, 1, 1], [1, 1, 0]], bool)
    assert run_lengths(mask) == [1, 4, 1]
    assert run_lengths(np.ones((2, 2), bool)) == [0, 4]
    assert run_lengths(np.zeros((2, 2), bool)) == [4]


def test_a_coco_document_round_trips_masks_boxes_and_categories() -> None:
    prompt = parse_prompt("person:0.5, car")
    masks = disc(20, 20, 8), disc(70, 50, 15)
    document = CocoDocument(prompt, {"version": "1"})
    document.add("a.png", "b.png", Localization((), SIZE, prompt.phrases))
    document.add("c.png", "c.jpg", Localization((instance(masks[0], 2), instance(masks[1], 1)), SIZE, prompt.phrases))
    content = document.content()
    assert [item["id"] for item in content["images"]] == [1, 2]
    assert content["categories"] == [
        {"id": 1, "name": "person", "strength": 0.5},
        {"id": 2, "name": "car", "strength": 1.0},
    ]
    assert document.counts == {1: 1, 2: 1}
    for entry, mask, category in zip(content["annotations"], masks, (2, 1), strict=True):
        assert (entry["image_id"], entry["category_id"], entry["area"]) == (2, category, mask.sum())
        counts = entry["segmentation"]["counts"]
        values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        assert np.array_equal(values.reshape(SIZE, order="F"), mask)
        left, top, width, height = entry["bbox"]
        assert (left, top, left + width, top + height) == mask_box(mask)


def test_an_overlay_tints_the_objects_and_leaves_the_rest() -> None:
    prompt = parse_prompt("person, car")
    image = np.full((120, 160, 3), 50, np.uint8)
    person, car = disc(40, 60, 20, (120, 160)), disc(120, 60, 20, (120, 160))
    drawn = draw_overlay(image, Localization((instance(person, 1), instance(car, 2)), (120, 160), prompt.phrases))
    assert (image == 50).all()
    for x, phrase in ((40, 1), (120, 2)):
        expected = 0.6 * 50 + 0.4 * np.array(phrase_color(phrase))
        assert np.abs(drawn[60, x] - expected).max() <= 1
    assert (drawn[90:] == 50).all()
    assert (drawn[20:38] != 50).any()  # captions
    assert np.array_equal(draw_overlay(image, Localization((), (120, 160), prompt.phrases)), image)


def test_an_empty_prompt_finds_nothing() -> None:
    localizer = make_localizer(LocalizerConfig(localizer="fixed", regions="0 0 10 10"))
    assert not localizer.locate(*IMAGES, Prompt())
