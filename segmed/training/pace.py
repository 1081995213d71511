"""Division of a time budget: steps of an epoch, validation, and the reserve for the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from segmed.errors import UsageError
from segmed.plan.schema import Plan
from segmed.training.budget import Budget
from segmed.training.sampling import TrainingCase, patch_in_volume

log = logging.getLogger(__name__)

TIMED_STEPS = 4
"""Steps after which the pace is settled; a budget in which no more fit is too short."""

SHORTENED_SHARE = 0.25
"""Share of the time for steps that an epoch takes which had to be shortened."""

FORWARD_SHARE = 1 / 3
"""A forward pass as a share of a training step of the same patches."""

LARGEST_CLOSING_SHARE = 0.5
"""At most this share of a budget is kept for the end."""

SCORING_S = 0.3
"""About what reading, bringing back, writing and scoring a case costs beside its windows, in s."""


SAMPLE = (4, 16)
"""Fewest and most cases of a validation between the first and the last one."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pace:
    """Division of a training's time.

    Attributes:
        steps: Steps of an epoch.
        num_validated: Held-out cases that the first and the last validation score.
        closing_s: Seconds kept for the last validation.
        scoring_s: Seconds kept for scoring by the caller.
    """

    steps: int
    num_validated: int
    closing_s: float = 0.0
    scoring_s: float = 0.0


@dataclass(frozen=True)
class Scoring:
    """Work on the held-out cases within a budget.

    Attributes:
        share: Share of the budget that a validation may take.
        is_scored: The caller scores all held-out cases at the end, in one process.
        processes: Processes that share out a validation.
    """

    share: float
    is_scored: bool = False
    processes: int = 1


def settle_pace(
    plan: Plan,
    held_out: Sequence[TrainingCase],
    budget: Budget,
    *,
    step_s: float,
    spent_s: float,
    scoring: Scoring,
    is_resumed: bool = False,
) -> Pace:
    """Share out what is left of a budget, once the time of a step is known.

    Args:
        plan: Gives steps of an epoch, patch and batch.
        held_out: Prepared cases to validate on.
        budget: The budget.
        step_s: Seconds of a step, by the budget's clock.
        spent_s: Seconds spent so far.
        scoring: Work on the held-out cases.
        is_resumed: Steps were taken before: nothing is refused.

    Returns:
        The pace; that of the plan where the budget states no time.

    Raises:
        UsageError: Fewer than `TIMED_STEPS` steps fit.
    """
    planned = plan.recipe.iterations_per_epoch
    if budget.seconds is None:
        return Pace(planned, len(held_out))
    window_s = FORWARD_SHARE * step_s / plan.recipe.batch_size
    costs = [window_s * count_windows(case, plan) for case in held_out]
    validated = _affordable(costs, scoring.processes * scoring.share * budget.seconds)
    if validated < len(held_out):
        log.info("validation on %d of %d held-out cases: time", validated, len(held_out))
    closing_s = scoring_s = 0.0
    if budget.clock == "wall":
        turns = math.ceil(validated / scoring.processes)
        closing_s = 1.1 * turns * sum(costs) / max(len(costs), 1)
        scoring_s = 1.1 * sum(costs) + SCORING_S * len(costs) if scoring.is_scored else 0.0
        kept = min(closing_s + scoring_s, LARGEST_CLOSING_SHARE * budget.seconds)
        scoring_s = max(0.0, kept - closing_s)
    for_steps_s = budget.seconds - closing_s - scoring_s
    if for_steps_s < TIMED_STEPS * step_s and not is_resumed:
        suffix = "-cpu" if budget.clock == "cpu" else ""
        needed = math.ceil(1.2 * (closing_s + scoring_s + 2 * TIMED_STEPS * step_s))
        raise UsageError(
            f"a budget of {budget.seconds:.0f} s is too short: a step takes about {step_s:.1f} s "
            f"and the validation {closing_s:.0f} s; give at least --budget {needed}s{suffix}"
        )
    left_s = for_steps_s - spent_s
    if planned * step_s <= max(left_s, step_s):
        return Pace(planned, validated, closing_s, scoring_s)
    steps = min(planned, max(TIMED_STEPS, int(SHORTENED_SHARE * left_s / step_s)))
    log.info("epochs of %d steps, so that several fit the budget", steps)
    return Pace(steps, validated, closing_s, scoring_s)


def count_windows(case: TrainingCase, plan: Plan) -> int:
    """Windows that segmenting a prepared case takes."""
    extents = case.shape
    window = patch_in_volume(plan, len(extents))
    steps = [max(1.0, edge * (1.0 - plan.inference.overlap)) for edge in window]
    return math.prod(
        1 + math.ceil(max(0, extent - edge) / step)
        for extent, edge, step in zip(extents, window, steps, strict=True)
    )


def _affordable(costs: Sequence[float], limit_s: float) -> int:
    """Return the number of cases of average cost that fit; at least one if there is any."""
    if not costs:
        return 0
    mean = sum(costs) / len(costs)
    return max(1, min(len(costs), int(limit_s / mean) if mean > 0 else len(costs)))


def spread_out(items: Sequence[Item], number: int) -> list[Item]:
    """Pick a number of items at even intervals, the same ones each time."""
    return [items[index * len(items) // number] for index in range(number)] if number else []


def sample_size(number: int) -> int:
    """Cases of a validation between the first and the last one: a quarter, 4 to 16.

    Args:
        number: Cases that the first and the last one score.
    """
    return min(number, max(SAMPLE[0], min(SAMPLE[1], number // 4)))
