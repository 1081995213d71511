"""The time of a training reaches the plan, from every command that makes one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tiny_data import tiny_plan, write_set
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.comparing.jobs import Request
from pipelines.comparing.resources import remark_on_budget, resources_for
from pipelines.comparing.settled_plan import settle_plan
from pipelines.demo import run
from pipelines.flows.compare import plan_for
from segmed.plan import plan_hash, read_plan, write_plan
from segmed.plan.resources import Resources
from segmed.training import Budget, Settings


def planned_for(path: Path) -> dict[str, Any]:
    return read_plan(path).planned_for


def test_a_budget_in_time_becomes_resources_and_epochs_do_not() -> None:
    cpu = resources_for(Budget.parse("5m-cpu"), "cpu")
    assert cpu is not None
    assert (cpu.seconds, cpu.clock, cpu.device) == (300.0, "cpu", "cpu")
    assert resources_for(Budget(seconds=60.0), "cpu", cores=3) == Resources(60.0, cores=3)
    assert resources_for(Budget(epochs=5), "cpu") is None
    assert resources_for(None, "cpu") is None


def test_plan_command_takes_a_budget_and_refuses_one_that_is_none(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    words = ["plan", str(manifest), "-o", str(tmp_path / "p.yaml"), "--device", "cpu", "--budget"]
    result = CliRunner().invoke(app, [*words, "90s"])
    assert result.exit_code == 0, result.output
    assert planned_for(tmp_path / "p.yaml")["seconds"] == 90.0
    assert "90 s on" in result.output
    refused = CliRunner().invoke(app, [*words, "soon"])
    assert refused.exit_code == 2
    assert "'soon' is not a duration" in refused.stderr


def test_train_plans_for_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = write_set(tmp_path / "set")
    words = ["train", str(manifest), "--model", "unet", "--budget", "0.1s-cpu", "--device", "cpu"]
    result = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out")])
    assert result.exit_code in (0, 2)  # on a fast machine a few steps fit
    assert planned_for(tmp_path / "out" / "plan.yaml")["seconds"] == 0.1
    assert planned_for(tmp_path / "out" / "plan.yaml")["clock"] == "cpu"


def test_compare_plans_for_the_time_of_one_training(tmp_path: Path) -> None:
    request = Request.parse(
        write_set(tmp_path / "set"),
        models="unet,unetpp",
        folds="all",
        plan=None,
        budget=Budget(seconds=100.0),
        settings=Settings(device="cpu"),
        out_dir=tmp_path / "out",
    )
    assert planned_for(plan_for(request))["seconds"] == 25.0


def test_demo_plans_for_a_fifth_of_its_time(tmp_path: Path) -> None:
    request = run._request(tmp_path, 300.0, quick=False)
    assert request.plan_path is not None
    assert planned_for(request.plan_path)["seconds"] == 60.0


def test_a_plan_for_a_very_different_time_is_used_with_a_remark(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = write_set(tmp_path)
    planned = tiny_plan().model_copy(update={"planned_for": Resources(60.0).as_record()})
    place = write_plan(planned, tmp_path / "plan.yaml")
    with caplog.at_level(logging.WARNING, "segmed.progress"):
        settle_plan(manifest, place, tmp_path, resources=Resources(100.0))
        assert not caplog.messages
        settle_plan(manifest, place, tmp_path, resources=Resources(3600.0))
    (said,) = caplog.messages
    assert "made for 60 s on 1 CPU core, this training has 3600 s" in said
    assert "finer spacing" in said
    assert "coarser" in remark_on_budget(planned, Resources(5.0))
    assert remark_on_budget(tiny_plan(), Resources(5.0)) == ""  # a plan of an earlier version


def test_what_a_plan_was_made_for_is_no_part_of_its_hash(tmp_path: Path) -> None:
    """Packages and caches of plans from before keep their names."""
    old = tiny_plan()
    new = old.model_copy(update={"planned_for": Resources(60.0).as_record()})
    assert plan_hash(old) == plan_hash(new)
    text = write_plan(new, tmp_path / "new.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("planned_for")]
    (tmp_path / "old.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert read_plan(tmp_path / "old.yaml") == old
