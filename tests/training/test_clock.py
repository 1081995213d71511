"""Budgets by the wall and by the processor, and how much of them validation may take."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from narrow_training import start

from segmed.manifest import Manifest
from segmed.plan import Plan
from segmed.training import Budget, Settings
from segmed.training.clock import Clock


def work(seconds: float) -> None:
    """Keep one core busy for so many CPU seconds."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_wall_counts_waiting_and_what_is_no_training() -> None:
    clock = Clock("wall")
    with clock.unpaid():
        time.sleep(0.1)
    assert clock.elapsed_s() >= 0.1


def test_the_processor_counts_neither_waiting_nor_what_is_no_training() -> None:
    clock = Clock("cpu")
    time.sleep(0.1)
    with clock.unpaid():
        work(0.1)
    assert clock.elapsed_s() < 0.05
    work(0.1)
    assert 0.1 <= clock.elapsed_s() < 0.15


def test_a_resumed_clock_goes_on() -> None:
    clock = Clock("cpu")
    clock.before_s = 10.0
    assert 10.0 <= clock.elapsed_s() < 10.05


def test_cpu_budget_pays_for_training_alone(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    begin = time.process_time()
    budget = Budget(seconds=4, clock="cpu")
    results = list(start(manifest, plan, tmp_path, cache_dir, budget=budget))
    whole = time.process_time() - begin
    assert results[-1].seconds == pytest.approx(4, rel=0.1)
    assert whole > results[-1].seconds, "preparation, validation and writing came on top"
    assert results[-1].learning_rate < 0.05 * plan.networks["unet"].learning_rate


def test_validation_leaves_a_time_budget_to_the_training(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    results = list(start(manifest, plan, tmp_path, cache_dir, budget=Budget(seconds=5)))
    between = [result.phases_s["validation"] for result in results[1:-1]]
    assert len(between) > 1
    assert sum(between) <= Settings().validation_share * results[-1].seconds
    assert results[0].val_dice
    assert results[-1].val_dice
    assert any(not result.val_dice for result in results)
