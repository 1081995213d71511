"""Progress of trainings in words."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import pytest
from tiny_data import write_set

from pipelines.comparing.jobs import Request, TrainJob
from pipelines.comparing.progress import TrainingProgress, duration, epoch_line, title_of
from segmed.training import Budget, EpochResult


def result(seconds: float, epoch: int = 3, **dice: float) -> EpochResult:
    return EpochResult(epoch, 30, 0.5, 0.25 if dice else None, dice, 0.01, seconds)


def job_with(budget: Budget, folder: Path) -> TrainJob:
    return TrainJob(folder / "m.json", folder / "plan.yaml", "unet", 0, budget, folder)


@pytest.mark.parametrize(
    ("budget", "seconds", "words"),
    [
        (Budget(seconds=240), 60.0, "25 %, 3 m 00 s left"),
        (Budget(seconds=240), 250.0, "100 %, 0 s left"),
        (Budget(epochs=12), 30.0, "25 %, 1 m 30 s left"),
        (Budget(seconds=86400), 864.0, "1 %, 23 h 45 m left"),
    ],
)
def test_epoch_says_how_far_and_how_long_to_go(budget: Budget, seconds: float, words: str) -> None:
    assert words in epoch_line("unet fold 0", result(seconds), budget)


def test_dice_is_said_when_it_is_known() -> None:
    budget = Budget(seconds=240)
    assert "Dice not measured" in epoch_line("unet", result(9), budget)
    assert "val loss 0.250  Dice anterior 0.812" in epoch_line(
        "unet", result(9, anterior=0.8123), budget
    )


@pytest.mark.parametrize("number", [1, 10, 11, 148])
def test_many_structures_are_summed_up(number: int) -> None:
    dice = {f"structure_{value}": value / 200 for value in range(number, 0, -1)}
    line = epoch_line("unet", result(9, **dice), Budget(seconds=240))
    if number <= 10:
        assert line.endswith("  ".join(f"{name} {value:.3f}" for name, value in dice.items()))
    else:
        lowest = "  ".join(f"structure_{value} {value / 200:.3f}" for value in range(1, 6))
        mean = sum(dice.values()) / number
        assert line.endswith(f"Dice {mean:.3f} over {number} structures, lowest  {lowest}")


def test_trainings_of_a_comparison_are_numbered(tmp_path: Path) -> None:
    request = Request.parse(
        write_set(tmp_path),
        models="unet,unetpp",
        folds="all",
        plan=None,
        budget=Budget(seconds=100),
        out_dir=tmp_path,
    )
    titles = [title_of(job) for job in request.jobs(tmp_path / "plan.yaml")]
    assert titles[0] == "unet fold 0 (model 1 of 4)"
    assert titles[-1] == "unetpp fold 1 (model 4 of 4)"


@pytest.mark.parametrize(("total", "lines"), [(1, 1), (7, 7), (95, 10)])
def test_scoring_says_which_case_of_how_many(
    total: int, lines: int, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "segmed.progress")
    show = TrainingProgress(job_with(Budget(epochs=1), tmp_path)).scoring(total)
    for done in range(1, total + 1):
        show(done, total)
    assert len(caplog.messages) == lines
    assert caplog.messages[0] == f"unet fold 0  scoring case 1 of {total}"


@pytest.mark.parametrize(
    ("budget", "is_resumed", "end"),
    [
        (Budget(seconds=96), False, "the budget of 1 m 36 s starts now"),
        (Budget(seconds=30, clock="cpu"), False, "the budget of 30 s of CPU time starts now"),
        (Budget(epochs=7), False, "7 epochs start now"),
        (Budget(seconds=96), True, "the budget continues"),
    ],
)
def test_preparation_is_said_with_its_seconds_before_the_budget_starts(
    budget: Budget,
    is_resumed: bool,
    end: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.INFO, "segmed.progress")
    shown = TrainingProgress(job_with(budget, tmp_path), is_resumed=is_resumed)
    for done in range(4):
        shown.prepared(done, 3)
    (line,) = caplog.messages  # a full cache is no news: the cases themselves are not listed
    assert re.fullmatch(rf"unet fold 0  3 cases prepared in 0\.\d s; {end}", line)


def test_slow_preparation_says_its_case(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, "segmed.progress")
    shown = TrainingProgress(job_with(Budget(seconds=60), tmp_path), _begun=0.0, _said=0.0)
    for done in range(21):
        shown.prepared(done, 20)
        now[0] += 2.0
    assert caplog.messages[0] == "unet fold 0  preparing case 4 of 20, 6 s"
    assert len(caplog.messages) == 7
    assert "20 cases prepared in 40 s" in caplog.messages[-1]


def test_wall_time_left_of_cpu_budgets_goes_by_the_pace(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, "segmed.progress")
    shown = TrainingProgress(job_with(Budget(seconds=60, clock="cpu"), tmp_path))
    shown.prepared(1, 1)
    now[0] += 5.0  # two cores: 10 s of CPU time
    shown.epoch(result(10.0))
    assert "17 %, 25 s left" in caplog.messages[-1]


def test_durations_are_said_in_two_units() -> None:
    assert [duration(s) for s in (0.2, 59.4, 60, 3599, 7500)] == [
        "0 s",
        "59 s",
        "1 m 00 s",
        "59 m 59 s",
        "2 h 05 m",
    ]
