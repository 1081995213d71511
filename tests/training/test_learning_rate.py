"""The learning rate warms up, never rises again, and ends annealed whatever the budget is."""

from __future__ import annotations

from typing import Literal

import pytest

from segmed.plan import Augmentation, Recipe
from segmed.training import Budget
from segmed.training.schedule import FINAL_SHARE, learning_rate

PEAK = 3e-3
STEPS_PER_EPOCH = 50
Schedule = Literal["poly", "cosine"]
SCHEDULES: tuple[Schedule, ...] = ("poly", "cosine")
BUDGETS = [Budget(epochs=1), Budget(epochs=20), Budget(seconds=300), Budget(seconds=5 * 3600)]


def recipe(schedule: Schedule, warmup: float = 0.03) -> Recipe:
    return Recipe(
        schedule=schedule, warmup=warmup, augmentation=Augmentation(rotation_deg=(0.0, 0.0, 0.0))
    )


def rates(
    budget: Budget, schedule: Schedule, *, seconds_per_step: float | None = None
) -> list[float]:
    """The rate of every step until the budget is spent; 300 steps if it is one of time."""
    if seconds_per_step is None:
        seconds_per_step = (budget.seconds or 1.0) / 300
    found: list[float] = []
    while True:
        step = len(found)
        progress = budget.progress(
            elapsed_s=step * seconds_per_step, step=step, steps_per_epoch=STEPS_PER_EPOCH
        )
        if progress >= 1.0:
            return found
        found.append(learning_rate(recipe(schedule), PEAK, progress))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_training_ends_annealed(schedule: Schedule, budget: Budget) -> None:
    found = rates(budget, schedule)
    assert found[-1] < 0.05 * PEAK
    assert min(found) > 0
    assert max(found) == pytest.approx(PEAK, rel=0.03)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_rate_rises_in_warm_up_and_never_again(schedule: Schedule, budget: Budget) -> None:
    found = rates(budget, schedule)
    top = found.index(max(found))
    assert top <= 0.03 * len(found) + 1
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_slow_machine_ends_as_annealed_as_a_fast_one(schedule: Schedule) -> None:
    budget = Budget(seconds=600)
    slow, fast = (rates(budget, schedule, seconds_per_step=pace) for pace in (6.0, 0.6))
    assert len(fast) == 10 * len(slow)
    assert slow[50] == pytest.approx(fast[500], rel=1e-6)


def test_the_cosine_is_half_way_down_in_the_middle_and_ends_at_its_share() -> None:
    without = recipe("cosine", warmup=0.0)
    middle = FINAL_SHARE + (1 - FINAL_SHARE) / 2
    assert learning_rate(without, PEAK, 0.0) == pytest.approx(PEAK)
    assert learning_rate(without, PEAK, 0.5) == pytest.approx(middle * PEAK)
    assert learning_rate(without, PEAK, 1.0) == pytest.approx(FINAL_SHARE * PEAK)


def test_the_polynomial_is_that_of_nnunet() -> None:
    """Isensee et al. 2021: peak times (1 - epoch / epochs) to the power of 0.9."""
    without = recipe("poly", warmup=0.0)
    assert learning_rate(without, PEAK, 0.5) == pytest.approx(0.5**0.9 * PEAK)
    assert 0 < learning_rate(without, PEAK, 1.0) < 0.003 * PEAK
