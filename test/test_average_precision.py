"""Average precision as COCO defines it, and of resampled sets of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdifuse_ros.metrics.average_precision import average_precision, match_detections, score_detections

BOX = [0.0, 0.0, 10.0, 10.0]
NONE = np.zeros((0, 4))


def shifted(by: float) -> list[float]:
    return [by, 0.0, 10.0 + by, 10.0]


def precision_of(*images) -> np.ndarray:
    """Average precisions [10] of images given as (boxes, scores, truths)."""
    boxes = [np.reshape(image[0], (-1, 4)) for image in images]
    truths = [np.reshape(image[2], (-1, 4)) for image in images]
    return average_precision(score_detections(boxes, [np.array(image[1]) for image in images], truths))[0]


class TestMatching:
    def test_thresholds_rise_from_a_half_to_95_percent(self) -> None:
        """Shifted by 1 of 10 pixels, boxes overlap by 9 / 11 = 0.82."""
        matches = match_detections(np.array([shifted(1)]), np.array([0.9]), np.array([BOX]))
        assert (matches[:, 0] >= 0).tolist() == [True] * 7 + [False] * 3

    def test_an_object_is_matched_once_by_the_box_of_highest_score(self) -> None:
        matches = match_detections(np.array([shifted(1), BOX]), np.array([0.9, 0.8]), np.array([BOX]))
        assert matches[0].tolist() == [0, -1]
        assert matches[-1].tolist() == [-1, 0]  # the first one is too far off for 0.95

    def test_a_box_takes_the_object_it_overlaps_most_of_those_left(self) -> None:
        truths = np.array([BOX, shifted(3)])
        matches = match_detections(np.array([shifted(2), shifted(2.5)]), np.array([0.8, 0.9]), truths)
        assert matches[0].tolist() == [0, 1]


class TestAveragePrecision:
    def test_is_one_for_all_found_and_nothing_false(self) -> None:
        assert precision_of(([BOX], [0.3], [BOX])) == pytest.approx(1)

    def test_is_zero_without_detections_and_undefined_without_objects(self) -> None:
        assert precision_of((NONE, [], [BOX])) == pytest.approx(0)
        assert np.isnan(precision_of(([BOX], [0.5], NONE))).all()

    def test_a_false_box_of_lower_score_costs_nothing(self) -> None:
        far = shifted(100)
        assert precision_of(([BOX, far], [0.9, 0.8], [BOX]))[0] == pytest.approx(1)
        assert precision_of(([BOX, far], [0.8, 0.9], [BOX]))[0] == pytest.approx(0.5)

    def test_reads_the_best_precision_at_101_recalls(self) -> None:
        """Found, false, found, of 3 objects: precision 1 up to a recall of 1/3, 2/3 up to 2/3, then nothing."""
        image = ([BOX, shifted(100), shifted(50)], [0.9, 0.8, 0.7], [BOX, shifted(50), shifted(200)])
        assert precision_of(image)[0] == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)

    def test_scores_are_compared_between_images(self) -> None:
        """The false box of one image ranks before the found object of the other one."""
        assert precision_of(([BOX], [0.4], [BOX]), ([BOX], [0.9], NONE))[0] == pytest.approx(0.5)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 10**6), st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
    def test_a_resampled_set_is_the_set_with_repeated_images(self, seed, drawn) -> None:
        rng = np.random.default_rng(seed)
        corners = [rng.uniform(0, 60, (rng.integers(0, 4), 2)) for _ in range(4)]
        truths = [np.hstack((item, item + 20)) for item in corners]
        boxes = [np.vstack((item + rng.normal(0, 2, item.shape), [shifted(200)] * 2)) for item in truths]
        scores = [rng.random(len(item)) for item in boxes]
        weighted = average_precision(score_detections(boxes, scores, truths), np.array([drawn, [1, 1, 1, 1]]))
        repeated = [n for n, times in enumerate(drawn) for _ in range(times)]
        literal = score_detections(*([items[n] for n in repeated] for items in (boxes, scores, truths)))
        assert weighted[0] == pytest.approx(average_precision(literal)[0], nan_ok=True)
        assert weighted[1] == pytest.approx(average_precision(score_detections(boxes, scores, truths))[0], nan_ok=True)
