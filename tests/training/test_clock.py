"""Budgets by the wall and by the processor, and how much of them validation may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from narrow_training import start

from segmed.manifest import Manifest
from segmed.plan import Plan
from segmed.training import Budget, Settings, clock, held_out, loop
from segmed.training.clock import Clock, ClockKind

TICK_S = 0.02
"""Seconds that pass on a faked clock at every look at it."""


class FakedTime:
    """A clock on the wall and one of the processor that only the test moves."""

    def __init__(self, tick_s: float = 0.0) -> None:
        self.tick_s = tick_s
        self.wall_s = 1000.0
        self.cpu_s = 10.0

    def monotonic(self) -> float:
        """Seconds on the wall."""
        self.wall_s += self.tick_s
        return self.wall_s

    def process_time(self) -> float:
        """CPU seconds of this process."""
        self.cpu_s += self.tick_s
        return self.cpu_s

    def pass_by(self, wall_s: float, cpu_s: float) -> None:
        """Let time pass."""
        self.wall_s += wall_s
        self.cpu_s += cpu_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakedTime:
    """The time that a training's budget is counted by."""
    faked = FakedTime()
    monkeypatch.setattr(clock, "time", faked)
    monkeypatch.setattr(loop, "time", faked)
    return faked


def test_wall_clock_counts_waiting_and_unpaid_work(time: FakedTime) -> None:
    wall = Clock("wall")
    with wall.unpaid() as took:
        time.pass_by(wall_s=3.0, cpu_s=1.0)
        assert took() == pytest.approx(3.0)
    assert wall.elapsed_s() == pytest.approx(3.0)


def test_cpu_clock_counts_neither_waiting_nor_unpaid_work(time: FakedTime) -> None:
    processor = Clock("cpu")
    time.pass_by(wall_s=3.0, cpu_s=0.0)
    with processor.unpaid():
        time.pass_by(wall_s=1.0, cpu_s=2.0)
    assert processor.elapsed_s() == 0.0
    time.pass_by(wall_s=1.0, cpu_s=0.5)
    assert processor.elapsed_s() == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["wall", "cpu"])
def test_begin_discards_preparation_and_keeps_resumed_time(
    kind: ClockKind, time: FakedTime
) -> None:
    resumed = Clock(kind)
    resumed.before_s = 10.0
    time.pass_by(wall_s=7.0, cpu_s=7.0)
    resumed.begin()
    time.pass_by(wall_s=1.0, cpu_s=1.0)
    assert resumed.elapsed_s() == pytest.approx(11.0)


def test_cpu_budget_pays_for_training_alone(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path, time: FakedTime
) -> None:
    time.tick_s = TICK_S
    begin_s = time.cpu_s
    budget = Budget(seconds=4, clock="cpu")
    with costly(held_out, "validate", lambda: time.pass_by(wall_s=2.0, cpu_s=2.0)):
        results = list(start(manifest, plan, tmp_path, cache_dir, budget=budget))
    assert results[-1].seconds == pytest.approx(4, abs=10 * TICK_S)
    validated = sum(bool(result.val_dice) for result in results)
    assert time.cpu_s - begin_s >= results[-1].seconds + 2.0 * validated
    assert results[-1].learning_rate < 0.1 * plan.networks["unet"].learning_rate


def test_preparation_is_not_paid_from_the_budget(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path, time: FakedTime
) -> None:
    time.tick_s = TICK_S
    with costly(loop, "load_shared", lambda: time.pass_by(wall_s=100.0, cpu_s=100.0)) as calls:
        results = list(start(manifest, plan, tmp_path, cache_dir, budget=Budget(seconds=4)))
    assert calls
    assert len(results) > 1
    assert results[-1].seconds < 5


def test_validation_leaves_a_time_budget_to_the_training(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path, time: FakedTime
) -> None:
    time.tick_s = TICK_S
    cost_s = 0.5
    with costly(held_out, "validate", lambda: time.pass_by(wall_s=cost_s, cpu_s=cost_s)):
        results = list(start(manifest, plan, tmp_path, cache_dir, budget=Budget(seconds=30)))
    between = sum(cost_s for result in results[1:-1] if result.val_dice)
    assert 0 < between <= Settings().validation_share * results[-1].seconds
    assert results[0].val_dice
    assert results[-1].val_dice
    assert any(not result.val_dice for result in results)


@contextmanager
def costly(module: ModuleType, name: str, also: Callable[[], None]) -> Iterator[list[str]]:
    """Run the module's function as it is, and something besides at each call."""
    calls: list[str] = []
    function = getattr(module, name)

    def run(*args: Any, **options: Any) -> Any:
        calls.append(name)
        also()
        return function(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, run)
        yield calls
