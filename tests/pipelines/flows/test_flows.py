"""Flows: their bodies by `.fn()`, and one real run on Prefect's temporary server."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness
from tiny_data import tiny_plan, write_set
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[2] / "integration"))

from listener import WebHook, listening

from pipelines.cli.app import app
from pipelines.comparing.jobs import Request
from pipelines.comparing.label_names import labels_of
from pipelines.comparing.settled_plan import settle_plan
from pipelines.flows.compare import compare
from pipelines.flows.runner import run_flow, without_expected_tracebacks
from pipelines.flows.schedules import Schedules, deployments, serve_schedules
from pipelines.flows.segment_archive import log_run
from pipelines.flows.weekly import WeeklyJob, week_of, weekly
from pipelines.registry.monthly import MonthlyJob
from pipelines.registry.versions import Registry
from pipelines.runs.archiving import ArchiveJob
from pipelines.runs.automations import HEARTBEAT_S, automations
from pipelines.runs.summary import RunSummary, summarise_run
from pipelines.tracking.address import tracking_uri
from pipelines.tracking.runs import connect_quietly
from segmed.archive.drift import DriftRow, drift_table
from segmed.errors import ModelError, UsageError
from segmed.manifest import read_manifest
from segmed.plan import write_plan
from segmed.training import Budget, Settings


def request_for(manifest: Path, folder: Path, **changes: object) -> Request:
    wishes = {"models": "unet,unetpp", "folds": "0", "register": "cubes"} | changes
    return Request.parse(
        manifest,
        plan=manifest.parent / "plan.yaml",
        budget=Budget(epochs=1),
        out_dir=folder / "out",
        settings=Settings(resume=True),
        **wishes,
    ).in_folder(folder)


def test_time_is_shared_out_over_models_and_folds(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    request = Request.parse(
        manifest,
        models="unet,unetpp",
        folds="all",
        plan=None,
        budget=Budget(seconds=100.0),
        out_dir=tmp_path,
    )
    jobs = request.jobs(tmp_path / "plan.yaml")
    assert [(job.architecture, job.fold) for job in jobs] == [
        ("unet", 0),
        ("unet", 1),
        ("unetpp", 0),
        ("unetpp", 1),
    ]
    assert {job.budget.seconds for job in jobs} == {25.0}


def test_plan_for_other_labels_is_refused(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    other = tiny_plan().model_copy(update={"labels": tiny_plan().labels[:1]})
    write_plan(other, tmp_path / "other.yaml")
    with pytest.raises(UsageError, match="make the plan from this manifest"):
        settle_plan(manifest, tmp_path / "other.yaml", tmp_path)


def test_labels_are_found_in_references_or_read_from_json(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    (tmp_path / "labels").mkdir()
    source = tmp_path / "set/case0_label.nii"
    (tmp_path / "labels/case0.nii").write_bytes(source.read_bytes())
    assert [label.value for label in labels_of(None, tmp_path / "labels")] == [1, 2]
    assert labels_of(manifest, tmp_path) == read_manifest(manifest).labels
    (tmp_path / "names.json").write_text('{"background": 0, "tumour": 1}', encoding="utf-8")
    assert [label.name for label in labels_of(tmp_path / "names.json", tmp_path)] == ["tumour"]
    (tmp_path / "names.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(UsageError, match="has no labels"):
        labels_of(tmp_path / "names.json", tmp_path)


def test_run_is_summarised_in_counts_and_metrics() -> None:
    def outcome(status: str, *, fresh: bool) -> dict[str, object]:
        return {"status": status, "fresh": fresh, "study": "1a2b", "reason": "missing_slice: one"}

    alarm = DriftRow("spacing_mm:0", 100, 12, 1.0, 1.5, 1.0, 1e-9, is_alarm=True)
    record = {
        "models": [{"model": "models:/a@champion", "hash": "f" * 64}],
        "outcomes": [
            outcome("done", fresh=True),
            outcome("refused", fresh=True),
            outcome("done", fresh=False),
        ],
        "drift": [asdict(alarm)],
    }
    summary = summarise_run(record, 61.0)
    assert summary.headline() == "1 done, 1 refused; drift alarm"
    assert summary.counts == {"done": 2, "refused": 1}
    told = "\n".join(summary.lines())
    assert "study 1a2b: missing_slice: one" in told
    assert "spacing_mm:0: 1 in training, 1.5 in 12 studies" in told
    assert summary.metrics() == {
        "studies/done": 1.0,
        "studies/refused": 1.0,
        "studies/met": 3.0,
        "seconds": 61.0,
        "drift/spacing_mm.0": 1.0,
        "drift/alarms": 1.0,
    }


def test_archive_run_becomes_a_run_of_the_tracker(working_folder: Path) -> None:
    alarm = DriftRow("spacing_mm:0", 100, 12, 1.0, 1.5, 1.0, 1e-9, is_alarm=True)
    summary = RunSummary({"done": 12}, {"done": 12}, (), 0, (alarm,), ({"hash": "f" * 64},), 5.0)
    out = working_folder / "out"
    out.mkdir()
    drift_table([alarm]).to_csv(out / "drift.csv")
    log_run.fn(summary, ArchiveJob("scans", ("a",), out, folder=working_folder))
    client = connect_quietly(tracking_uri(working_folder))
    experiment = client.get_experiment_by_name("archive")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["drift/spacing_mm.0"] == 1.0
    assert run.data.metrics["drift/alarms"] == 1.0
    assert run.data.metrics["studies/done"] == 12.0
    assert run.data.tags["segmed.drift_alarm"] == "true"
    assert [entry.path for entry in client.list_artifacts(run.info.run_id)] == ["drift.csv"]


def test_expected_errors_lose_their_traceback_in_the_log() -> None:
    def record(error: Exception) -> logging.LogRecord:
        info = (type(error), error, None)
        return logging.LogRecord("prefect", logging.ERROR, "", 0, "failed", None, info)

    ours, other = record(UsageError("one line")), record(ZeroDivisionError())
    assert without_expected_tracebacks(ours)
    assert without_expected_tracebacks(other)
    assert ours.exc_info is None
    assert other.exc_info is not None


def test_schedules_need_a_lasting_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(UsageError, match="prefect server start"):
        serve_schedules(Schedules(ArchiveJob("scans", ("models:/a@champion",), tmp_path)))


def test_schedules_run_every_run_and_every_week(tmp_path: Path) -> None:
    job = ArchiveJob("dicomweb://pacs/dicom-web", ("models:/a@champion",), tmp_path)
    comparison = WeeklyJob(tmp_path / "m.json", "a", tmp_path, size="residual")
    month = MonthlyJob(job.models, tmp_path / "out", tmp_path / "months")
    schedules = Schedules(job, comparison, month, days=3, notify=("custom-webhook/night",))
    found = deployments(schedules)
    names = [entry.name for entry in found]
    assert names[:4] == ["nightly", "on-demand", "weekly", "monthly"]
    assert set(names[4:]) == {"preprocess", "train", "evaluate", "compare", "watch"}
    crons = [[each.schedule.cron for each in entry.schedules] for entry in found]
    assert crons == [["0 2 * * *"], [], ["0 4 * * 0"], ["0 6 1 * *"], *[[]] * 5]
    assert {tuple(entry.tags) for entry in found} == {("segmed",)}
    assert found[0].parameters["job"]["models"] == ["models:/a@champion"]
    assert found[0].parameters["days"] == 3
    assert found[2].parameters["job"]["size"] == "residual"
    assert found[2].parameters["notify"] == ["custom-webhook/night"]
    assert found[3].parameters["job"]["models"] == ["models:/a@champion"]
    json.dumps([entry.parameters for entry in found])


def test_work_pool_gets_the_heartbeat_into_each_run(tmp_path: Path) -> None:
    job = ArchiveJob("scans", ("models:/a@champion",), tmp_path)
    for entry in deployments(Schedules(job, work_pool="scans")):
        assert entry.work_pool_name == "scans"
        assert entry.job_variables == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
        assert entry.entrypoint.startswith("pipelines.flows.")


def test_automations_find_dead_runs_and_continue_scheduled_ones_once() -> None:
    found = {automation.name: automation for automation in automations()}
    silent = found["crashed-without-heartbeat"].trigger
    assert silent.within.total_seconds() > HEARTBEAT_S
    assert {"prefect.flow-run.heartbeat", "prefect.flow-run.Completed"} <= silent.expect
    continued = found["segmed: continue a crashed run"]
    assert continued.actions[0].source == "inferred"
    tags = [dict(each.root)["prefect.resource.id"] for each in continued.trigger.match_related]
    assert "prefect.tag.auto-scheduled" in str(tags), "its own run would be continued again"
    assert not any(name.startswith("segmed: tell") for name in found)


def test_week_has_one_name_whatever_its_day() -> None:
    assert week_of(datetime(2026, 11, 23, tzinfo=UTC)) == "2026-W48"
    assert week_of(datetime(2026, 11, 29, tzinfo=UTC)) == "2026-W48"
    assert week_of(datetime(2027, 1, 1, tzinfo=UTC)) == "2026-W53"


@pytest.fixture(scope="module")
def temporary_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.slow
def test_comparison_leaves_report_runs_and_champion(
    temporary_server: None, working_folder: Path
) -> None:
    manifest = write_set(working_folder / "set", steps=30)
    record = run_flow(compare, request_for(manifest, working_folder))
    assert set(record["architectures"]) == {"unet", "unetpp"}
    assert record["failures"] == []
    assert (working_folder / "out/report.html").exists()
    champion = Registry(working_folder).version("cubes", "champion")
    assert champion.reference == record["registered"]
    assert "Scores on cases kept out of training" in champion.description
    again = run_flow(compare, request_for(manifest, working_folder))
    assert again["registered"] == record["registered"]
    assert again["architectures"] == record["architectures"]


@pytest.mark.slow
def test_comparison_that_learned_nothing_leaves_a_version_without_an_alias(
    temporary_server: None, working_folder: Path
) -> None:
    manifest = write_set(working_folder / "set", steps=1)
    words = ["compare", manifest, "--plan", manifest.parent / "plan.yaml", "--models", "unet"]
    words += ["--folds", "0", "--epochs", "1", "--register", "cubes", "-o", "out"]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 1, done.output
    (line,) = (line for line in done.output.splitlines() if line.startswith("registered: "))
    assert line.startswith(
        "registered: models:/cubes/1, refused as champion and challenger: nothing"
    )
    assert [entry.aliases for entry in Registry(working_folder).versions("cubes")] == [()]
    record = json.loads((working_folder / "out/comparison.json").read_text(encoding="utf-8"))
    assert record["registered"] == "models:/cubes/1"
    assert "below 0.1" in record["refused"]


@pytest.mark.slow
def test_a_training_that_cannot_fit_fails_alone(
    temporary_server: None, working_folder: Path
) -> None:
    manifest = write_set(working_folder / "set")
    plan = tiny_plan()
    flat = {"widths": [8], "strides": [[1, 1, 1]], "kernels": [[3, 3, 3]]}
    networks = {
        "unet": plan.networks["unet"],
        "fcn8s": plan.networks["unet"].model_copy(update={"options": flat}),
    }
    write_plan(plan.model_copy(update={"networks": networks}), manifest.parent / "plan.yaml")
    wishes = request_for(manifest, working_folder, models="fcn8s,unet,unetpp", register=None)
    record = run_flow(compare, wishes)
    assert set(record["architectures"]) == {"unet"}
    assert len(record["failures"]) == 2
    assert "fcn8s/fold0: the FCN needs at least 2 levels" in record["failures"][0]
    assert "unetpp/fold0: unknown network of this plan" in record["failures"][1]
    alone = request_for(manifest, working_folder, models="fcn8s", register=None)
    with pytest.raises(ModelError, match="at least 2 levels"):
        run_flow(compare, alone)


@pytest.mark.slow
def test_weekly_winner_meets_the_champion_at_the_gate(
    temporary_server: None, working_folder: Path
) -> None:
    manifest = write_set(working_folder / "set", test=6, steps=30)
    job = WeeklyJob(manifest, "cubes", working_folder / "weekly", 0.01, working_folder, "unet", "0")
    with listening(WebHook()) as hook:
        first = weekly(job, (hook.url,))
        assert Registry(working_folder).version("cubes", "champion").reference == first
        again = replace(job, out_dir=working_folder / "next", models="unetpp")
        second = weekly(again, (hook.url,))
    assert second != first
    assert hook.got[0]["subject"] == f"segmed: weekly comparison: {first[8:]} is registered"
    assert hook.got[1]["subject"].startswith(f"segmed: weekly comparison: {second[8:]} ")
    evidence = re.compile(r"rule +champion +challenger +improvement +needed\n- (pass|FAIL)  cases ")
    assert evidence.search(hook.got[1]["body"]), "no evidence of the gate"
    champion = Registry(working_folder).version("cubes", "champion").reference
    assert champion == (first if "not promoted" in hook.got[1]["subject"] else second)
