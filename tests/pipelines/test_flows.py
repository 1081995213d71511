"""Flows: their bodies by `.fn()`, and one real run on Prefect's temporary server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness
from tiny_data import tiny_plan, write_set

from pipelines.flows.compare import compare
from pipelines.flows.preprocess import preprocess
from pipelines.flows.runner import run_flow, without_expected_tracebacks
from pipelines.flows.schedules import Schedules, deployments, serve_schedules
from pipelines.flows.segment_archive import count
from pipelines.jobs import Request, labels_of, settle_plan
from pipelines.registry import Registry
from segmed.errors import UsageError
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
        **wishes,  # type: ignore[arg-type]
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
    with pytest.raises(UsageError, match="make a plan for this manifest"):
        settle_plan(manifest, tmp_path / "other.yaml", tmp_path)


def test_labels_are_found_in_references_or_read_from_json(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    (tmp_path / "labels").mkdir()
    source = tmp_path / "set/case0_label.nii"
    (tmp_path / "labels/case0.nii").write_bytes(source.read_bytes())
    assert [label.value for label in labels_of(None, tmp_path / "labels")] == [1, 2]
    assert labels_of(manifest, tmp_path) == read_manifest(manifest).labels
    (tmp_path / "names.json").write_text('{"background": 0, "tumour": 1}')
    assert [label.name for label in labels_of(tmp_path / "names.json", tmp_path)] == ["tumour"]
    (tmp_path / "names.json").write_text("[1]")
    with pytest.raises(UsageError, match="holds no labels"):
        labels_of(tmp_path / "names.json", tmp_path)


def test_studies_are_counted_by_status() -> None:
    outcomes = [{"status": "done"}, {"status": "refused"}, {"status": "done"}]
    assert count({"outcomes": outcomes}) == {"done": 2, "refused": 1}


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
        serve_schedules(Schedules(tmp_path, "models:/a@champion", tmp_path))


def test_schedules_run_every_night_and_every_week(tmp_path: Path) -> None:
    found = deployments(
        Schedules(tmp_path, "models:/a@champion", tmp_path, manifest=tmp_path / "m.json")
    )
    assert [entry.name for entry in found] == ["nightly", "weekly"]
    assert [entry.schedules[0].schedule.cron for entry in found] == ["0 2 * * *", "0 4 * * 0"]
    assert found[1].parameters["model"] == "a"


@pytest.fixture(scope="module")
def temporary_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.slow
def test_comparison_leaves_report_runs_and_champion(
    temporary_server: None, working_folder: Path
) -> None:
    manifest = write_set(working_folder / "set")
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
def test_preprocessing_fills_the_cache(temporary_server: None, tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    cache = tmp_path / "cache"
    assert preprocess(manifest, tmp_path / "plan.yaml", cache) == 4
    assert len(list(cache.iterdir())) >= 4
