"""The latency budget, against simulated loads on a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdifuse_ros.runtime.latency_budget import SCALES, Effort, LatencyBudget, ladder

PERIOD = 0.1


class Load:
    """Images at 10 Hz whose latency is ``fixed`` and ``each`` a full-size step; one in work longer loses the next."""

    def __init__(self, fixed: float, each: float) -> None:
        self.fixed, self.each = fixed, each
        self.now = 0.0
        self.budget = LatencyBudget(lambda: self.now)
        self.efforts: list[Effort] = []

    def cost(self, effort: Effort) -> float:
        return (self.fixed + self.each * effort.steps) * effort.scale**2

    def play(self, images: int, budget: float, steps: int = 4) -> Effort:
        for _ in range(images):
            effort = self.budget.effort(budget, steps)
            self.efforts.append(effort)
            self.now += max(PERIOD, self.cost(effort))
            for _ in range(int(self.cost(effort) / PERIOD)):
                self.budget.lost()
            self.budget.observe(self.cost(effort), effort)
        return self.budget.effort(budget, steps)


def test_steps_halve_first_and_then_the_image_shrinks():
    assert ladder(4) == [Effort(4), Effort(2), Effort(1), *(Effort(1, scale) for scale in SCALES)]
    assert [rung.steps for rung in ladder(100)][:7] == [100, 50, 25, 12, 6, 3, 1]
    assert ladder(1) == [Effort(1), *(Effort(1, scale) for scale in SCALES)]


def test_without_a_budget_nothing_ever_changes():
    load = Load(5.0, 5.0)
    assert load.play(100, 0.0) == Effort(4)
    assert load.budget.changes == 0


@pytest.mark.parametrize(
    ("fixed", "each", "settles"),
    [
        (0.01, 0.01, Effort(4)),  # 50 ms
        (0.01, 0.03, Effort(2)),  # 130, 70 ms
        (0.02, 0.06, Effort(1)),  # 260, 140, 80 ms
        (0.02, 0.12, Effort(1, 0.75)),  # 140 ms at full size, 79 ms
        (1.00, 1.00, Effort(1, 0.5)),  # hopeless: the least there is
    ],
)
def test_an_overloaded_node_settles_where_the_budget_is_kept(fixed, each, settles):
    load = Load(fixed, each)
    load.play(400, 0.1)
    assert load.efforts[-20:].count(settles) >= 14, load.efforts[-20:]
    assert load.budget.changes <= 16, "it must not swing"


def test_single_slow_images_change_nothing():
    load = Load(0.01, 0.01)
    for _ in range(30):
        load.play(5, 0.1)
        load.budget.observe(5.0, Effort(4))
    assert load.budget.changes == 0


def test_the_full_effort_comes_back_when_the_load_goes():
    load = Load(0.02, 0.06)
    assert load.play(60, 0.1) == Effort(1)
    load.fixed = load.each = 0.005
    assert load.play(150, 0.1) == Effort(4)


def test_images_that_are_lost_count_as_over_the_budget_although_those_fused_keep_it():
    load = Load(0.02, 0.03)  # 140 ms with four steps: within a second, but longer than a period
    assert load.play(60, 1.0) == Effort(2)


def test_what_was_begun_before_a_change_does_not_count():
    budget = LatencyBudget(lambda: 0.0)
    effort = budget.effort(0.1, 4)
    for _ in range(3):
        budget.observe(1.0, effort)
    assert budget.effort(0.1, 4) == Effort(2)
    for _ in range(10):
        budget.observe(1.0, effort)
    assert budget.effort(0.1, 4) == Effort(2)


def test_other_steps_another_budget_and_reset_begin_at_the_top():
    load = Load(1.0, 1.0)
    assert load.play(100, 0.1) == Effort(1, 0.5)
    assert load.budget.effort(0.1, 2) == Effort(2)
    load.play(100, 0.1, 2)
    load.budget.reset()
    assert load.budget.effort(0.1, 2) == Effort(2)


@settings(max_examples=60, deadline=None)
@given(
    fixed=st.floats(0.0, 0.2),
    each=st.floats(0.001, 0.2),
    budget=st.floats(0.02, 0.5),
    steps=st.integers(1, 12),
)
def test_any_steady_load_settles_at_a_rung_that_keeps_the_budget_or_at_the_last(fixed, each, budget, steps):
    load = Load(fixed, each)
    load.play(600, budget, steps)
    late = load.efforts[-60:]
    most = max(set(late), key=late.count)
    rungs = ladder(steps)

    def kept(rung: Effort) -> bool:
        return load.cost(rung) <= min(budget, PERIOD - 1e-9)

    assert kept(most) or most == rungs[-1]
    index = rungs.index(most)
    if index:  # the rung above would not keep it, or only without the room that keeps it from swinging
        above = rungs[index - 1]
        assert not kept(above) or load.cost(most) * above.cost / most.cost > 0.85 * budget
    assert load.budget.changes <= 40
