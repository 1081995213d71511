"""Division of a time budget."""

from __future__ import annotations

import pytest
import torch
from tiny_data import tiny_plan

from segmed.errors import UsageError
from segmed.plan import Plan
from segmed.training.budget import Budget
from segmed.training.pace import Pace, Scoring, count_windows, settle_pace, spread_out
from segmed.training.sampling import TrainingCase


@pytest.fixture
def plan() -> Plan:
    """A plan with epochs of 50 steps."""
    return tiny_plan(steps=50)


def cases(plan: Plan, number: int, patches: int) -> list[TrainingCase]:
    """Cases as long as so many patches."""
    extent = (plan.patch_size[0] * patches, *plan.patch_size[1:])
    label = torch.zeros(extent, dtype=torch.uint8)
    return [
        TrainingCase.of(f"case{index}", torch.zeros(1, *extent), label) for index in range(number)
    ]


def pace_of(
    plan: Plan, seconds: float, step_s: float, number: int = 4, processes: int = 1, **more: bool
) -> Pace:
    return settle_pace(
        plan,
        cases(plan, number, 2),
        Budget(seconds=seconds),
        step_s=step_s,
        spent_s=4 * step_s,
        scoring=Scoring(0.1, more.get("is_scored", False), processes),
    )


def test_epochs_of_the_plan_stay_where_they_fit(plan: Plan) -> None:
    assert pace_of(plan, 600, 0.1).steps == 50


@pytest.mark.parametrize("step_s", [2.0, 5.0, 12.0])
def test_epochs_shrink_where_fifty_steps_do_not_fit(plan: Plan, step_s: float) -> None:
    steps = pace_of(plan, 90, step_s).steps
    assert 4 <= steps < 50
    assert steps * step_s < 90


@pytest.mark.parametrize(("step_s", "number"), [(1.0, 60), (3.0, 40), (0.2, 2000)])
def test_validation_takes_at_most_its_share(plan: Plan, step_s: float, number: int) -> None:
    pace = pace_of(plan, 100, step_s, number)
    assert 1 <= pace.num_validated < number
    one_case_s = step_s / plan.recipe.batch_size / 3 * count_windows(cases(plan, 1, 2)[0], plan)
    assert pace.num_validated * one_case_s <= max(10.0, one_case_s)
    assert pace.closing_s <= 1.1 * max(10.0, one_case_s) + 1e-6


def test_scoring_within_the_budget_is_kept_aside(plan: Plan) -> None:
    without, scored = pace_of(plan, 60, 0.5), pace_of(plan, 60, 0.5, is_scored=True)
    assert without.scoring_s == 0
    assert scored.scoring_s > 1.0
    assert pace_of(plan, 60, 0.5, 1000, is_scored=True).scoring_s <= 30.0


@pytest.mark.parametrize("seconds", [1.0, 9.0, 20.0])
def test_budget_of_fewer_than_a_few_steps_says_what_would_do(plan: Plan, seconds: float) -> None:
    with pytest.raises(UsageError, match=r"too short: a step takes .* --budget (\d+)s") as got:
        pace_of(plan, seconds, seconds)
    advised = float(str(got.value).rpartition(" ")[2].rstrip("s"))
    assert pace_of(plan, advised, seconds).steps >= 4


def test_processes_that_share_a_validation_afford_more_cases_in_the_same_time(plan: Plan) -> None:
    alone, four = pace_of(plan, 100, 1.0, 200), pace_of(plan, 100, 1.0, 200, processes=4)
    assert four.num_validated == pytest.approx(4 * alone.num_validated, abs=3)
    assert four.closing_s == pytest.approx(alone.closing_s, rel=0.2)
    assert pace_of(plan, 60, 0.5, processes=4, is_scored=True).scoring_s > 1.0


def test_budget_in_epochs_is_left_alone(plan: Plan) -> None:
    held_out = cases(plan, 30, 3)
    pace = settle_pace(
        plan,
        held_out,
        Budget(epochs=2),
        step_s=9.0,
        spent_s=36,
        scoring=Scoring(0.1, is_scored=True),
    )
    assert pace == Pace(50, 30)


def test_cases_are_spread_out_and_the_same_each_time(plan: Plan) -> None:
    held_out = cases(plan, 10, 1)
    chosen = [case.id for case in spread_out(held_out, 3)]
    assert chosen == ["case0", "case3", "case6"]
    assert spread_out(held_out, 10) == held_out
    assert spread_out([], 0) == []
