"""The first and the last validation score all held-out cases, those between a sample of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from narrow_training import narrow_plan, start

from segmed.manifest import Manifest, read_manifest
from segmed.plan import Plan
from segmed.training import Budget, EpochResult
from segmed.training.device import choose_device
from segmed.training.distributed import ProcessGroup
from segmed.training.held_out import HeldOut, is_best, is_patience_over
from segmed.training.pace import Pace, sample_size
from segmed.training.sampling import TrainingCase

HELD_OUT = 7


@pytest.fixture(scope="module")
def many(sample_manifest_path: Path) -> Manifest:
    """Two cases to train on, seven held out."""
    whole = read_manifest(sample_manifest_path)
    inside, held_out = whole.split(0)
    others = [case.model_copy(update={"fold": 0}) for case in inside[2:]]
    cases = (*inside[:2], *[*held_out, *others][:HELD_OUT])
    assert len(cases) == 2 + HELD_OUT
    return whole.model_copy(update={"training": cases, "test": ()})


@pytest.fixture(scope="module")
def short(many: Manifest) -> Plan:
    return narrow_plan(many)


@pytest.mark.parametrize(
    ("number", "size"), [(0, 0), (3, 3), (5, 4), (20, 5), (52, 13), (64, 16), (5000, 16)]
)
def test_a_sample_is_a_quarter_within_bounds(number: int, size: int) -> None:
    assert sample_size(number) == size


def test_epochs_between_the_first_and_the_last_validate_a_sample(
    many: Manifest, short: Plan, tmp_path: Path, cache_dir: Path
) -> None:
    whole = list(start(many, short, tmp_path / "a", cache_dir, budget=Budget(epochs=4)))
    assert [result.val_cases for result in whole] == [HELD_OUT, 4, 4, HELD_OUT]
    assert all(result.sample_dice is not None for result in whole)
    assert [result.mean_dice == result.sample_dice for result in whole[1:3]] == [True, True]
    run = start(many, short, tmp_path / "b", cache_dir, budget=Budget(epochs=4))
    next(run)
    run.close()
    rest = list(start(many, short, tmp_path / "b", cache_dir, budget=Budget(epochs=4), resume=True))
    assert [result.val_dice for result in rest] == [result.val_dice for result in whole[1:]]


def test_a_training_that_patience_ends_is_validated_on_all_cases(
    many: Manifest, short: Plan, tmp_path: Path, cache_dir: Path
) -> None:
    still = short.networks["unet"].model_copy(update={"learning_rate": 1e-12})
    plan = short.model_copy(update={"networks": {"unet": still}})
    results = list(start(many, plan, tmp_path, cache_dir, budget=Budget(epochs=50), patience=2))
    assert len(results) < 50
    assert [result.val_cases for result in results][1:] == [4] * (len(results) - 2) + [HELD_OUT]


def result(epoch: int, *, everywhere: float, sample: float | None) -> EpochResult:
    return EpochResult(epoch, epoch, 0.0, 0.0, {"a": everywhere}, 0.0, 0.0, sample_dice=sample)


def test_epochs_are_compared_by_the_cases_that_all_of_them_score() -> None:
    first = result(1, everywhere=0.9, sample=0.5)
    assert is_best([first], result(2, everywhere=0.6, sample=0.6))
    assert not is_best([first], result(2, everywhere=0.99, sample=0.4))
    assert is_patience_over([first, result(2, everywhere=0.95, sample=0.4)], 1)
    assert is_best(
        [result(1, everywhere=0.9, sample=None)], result(2, everywhere=0.91, sample=None)
    )


def test_the_cost_of_a_validation_grows_with_its_cases(plan: Plan) -> None:
    cases: list[TrainingCase] = [None] * 40
    held_out = HeldOut(cases, plan, choose_device("cpu"), ProcessGroup())
    pace = Pace(50, 40)
    assert len(held_out.chosen(pace, is_full=False)[0]) == 40  # the first
    held_out.paid(20.0, 40)
    assert len(held_out.chosen(pace, is_full=False)[0]) == 10
    assert held_out.cost_s(10) == 5.0
    assert held_out.leaves_time(pace, 25.0)
    assert not held_out.leaves_time(pace, 24.9)
