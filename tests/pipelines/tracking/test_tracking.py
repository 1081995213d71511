"""Runs as they stand in an embedded MLflow database."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.tracking import runs as tracking
from pipelines.tracking.late_delivery import sync
from pipelines.tracking.outbox import GATHERED_RECORDS, Outbox, deliver, outboxes
from segmed.errors import ServiceError
from segmed.manifest import Manifest
from segmed.metrics import evaluate_case, scores_table
from segmed.plan import Plan
from segmed.training import EpochResult


def epoch_result(epoch: int) -> EpochResult:
    return EpochResult(
        epoch=epoch,
        step=4 * epoch,
        train_loss=0.5,
        val_loss=0.6,
        val_dice={"anterior": 0.8},
        learning_rate=1e-3,
        seconds=2.0,
        phases_s={"data": 0.1, "forward": 0.5, "backward": 0.9},
        peak_memory_mb=700.0,
    )


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs_of(folder: Path, name: str = "hippo") -> list:
    client = client_of(folder)
    experiment = client.get_experiment_by_name(name)
    return client.search_runs([experiment.experiment_id])


def test_comparison_holds_one_child_for_each_model_and_fold(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    with tracking.comparison("first", manifest, plan) as parent:
        for fold in (0, 1):
            with parent.child("unet", fold) as run:
                for epoch in range(3):
                    run.epoch(epoch_result(epoch))
    runs = {run.info.run_name: run for run in runs_of(working_folder)}
    assert set(runs) == {"first", "unet/fold0", "unet/fold1"}
    child = runs["unet/fold1"]
    assert child.data.tags["mlflow.parentRunId"] == runs["first"].info.run_id
    assert child.data.params["fold"] == "1"
    history = client_of(working_folder).get_metric_history(child.info.run_id, "val/dice/anterior")
    assert [(point.step, point.value) for point in history] == [(0, 0.8), (1, 0.8), (2, 0.8)]
    assert child.data.metrics["time/backward_s"] == 0.9
    assert child.data.metrics["train/peak_memory_mb"] == 700.0
    assert all(run.info.status == "FINISHED" for run in runs.values())


def test_run_names_its_data_and_plan_by_hash(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    with tracking.comparison("first", manifest, plan) as parent:
        run_id = parent.run_id()
    run = client_of(working_folder).get_run(run_id)
    assert len(run.data.tags["data_hash"]) == len(run.data.tags["plan_hash"]) == 64
    (dataset,) = run.inputs.dataset_inputs
    assert run.data.tags["data_hash"].startswith(dataset.dataset.digest)


def test_infinite_and_undefined_values_are_not_logged(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    with tracking.comparison("first", manifest, plan) as parent:
        parent.metrics({"bad": math.inf, "worse": math.nan, "good": 1.0})
        run_id = parent.run_id()
    assert client_of(working_folder).get_run(run_id).data.metrics == {"good": 1.0}


def test_artifacts_plots_and_package_lie_in_the_run(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    package = working_folder / "anything"
    package.mkdir()
    (package / "package.json").write_text('{"hash": "0"}', encoding="utf-8")
    with tracking.comparison("first", manifest, plan) as parent, parent.child("unet", 0) as run:
        history = [{"epoch": 0, "train_loss": 1.0, "val_loss": None, "val_dice": {"a": 0.5}}]
        run.curves(history, "unet, fold 0")
        run.package(package)
        run_id = run.run_id()
    names = [entry.path for entry in client_of(working_folder).list_artifacts(run_id)]
    assert sorted(names) == ["model", "plots"]
    assert outboxes(working_folder / tracking.OUTBOX_FOLDER) == []


def test_failed_and_interrupted_runs_say_so(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    with tracking.comparison("first", manifest, plan) as parent:
        with pytest.raises(ZeroDivisionError), parent.child("unet", 0):
            raise ZeroDivisionError
        with pytest.raises(KeyboardInterrupt), parent.child("unet", 1):
            raise KeyboardInterrupt
    status = {run.info.run_name: run.info.status for run in runs_of(working_folder)}
    assert status == {"first": "FINISHED", "unet/fold0": "FAILED", "unet/fold1": "KILLED"}


@pytest.mark.timeout(120)  # its client alone would ask for 15 minutes
def test_server_that_is_down_fails_the_start(
    tmp_path: Path, manifest: Manifest, plan: Plan
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with (
        pytest.raises(ServiceError, match="does not answer: start it"),
        tracking.comparison(
            "first", manifest, plan, folder=tmp_path, uri=f"http://user:secret@127.0.0.1:{port}"
        ),
    ):
        pass


def test_error_messages_hide_the_password() -> None:
    assert tracking.without_password("http://user:secret@host:1") == "http://host:1"


def test_sync_delivers_what_a_killed_run_left(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    with tracking.comparison("first", manifest, plan) as parent:
        experiment = client_of(working_folder).get_run(parent.run_id()).info.experiment_id
    box = Outbox.create(working_folder / tracking.OUTBOX_FOLDER)
    shared = {"experiment": experiment, "time": 1}
    box.append({"kind": "run", "name": "orphan", "tags": {}, **shared})
    for step in range(3):
        box.append({"kind": "metrics", "values": {"loss": step / 2}, "step": step, **shared})
    with box.path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "metrics", "val')
    assert sync(working_folder) == (5, 1)
    (run,) = (run for run in runs_of(working_folder) if run.info.run_name == "orphan")
    history = client_of(working_folder).get_metric_history(run.info.run_id, "loss")
    assert [point.value for point in history] == [0.0, 0.5, 1.0]
    assert run.info.status == "KILLED"
    assert sync(working_folder) == (0, 0)


def test_sync_leaves_a_living_run_alone(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    with tracking.comparison("first", manifest, plan) as parent:
        parent.run_id()
        assert sync(working_folder) == (0, 0)
        parent.metrics({"after": 1.0})
        run_id = parent.run_id()
    assert client_of(working_folder).get_run(run_id).data.metrics == {"after": 1.0}


def test_held_out_scores_are_logged_by_metric_and_structure_with_units(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    labels = plan.labels
    rows = [
        evaluate_case(found, mask, labels=labels, spacing_mm=(1.0, 1.0, 1.0), case_id=name)
        for name, found in (("Mueller", mask), ("Meier", 0 * mask))
    ]
    with tracking.comparison("first", manifest, plan) as parent, parent.child("unet", 0) as run:
        run.epoch(epoch_result(1))
        run.scores(scores_table([score for row in rows for score in row]), step=2)
        run_id = run.run_id()
    client = client_of(working_folder)
    points = client.get_metric_history(run_id, "val/dice/anterior")
    assert [(point.step, point.value) for point in points] == [(1, 0.8), (2, 0.5)]
    logged = client.get_run(run_id).data.metrics
    assert logged["val/hd95_mm/anterior"] == pytest.approx(np.sqrt(3 * 64) / 2, rel=1e-5)
    assert logged["val/missed/anterior"] == 1
    assert "val/dice/posterior" not in logged  # in no case, so there is no mean
    path = client.download_artifacts(run_id, "scores/summary.csv", str(working_folder))
    text = Path(path).read_text(encoding="utf-8")
    assert "anterior,hd95_mm" in text
    assert "Meier" not in text


def test_outbox_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    box = Outbox.create(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        box.append({"value": math.inf})
    assert [json.loads(line) for line in box.path.read_text(encoding="utf-8").splitlines()] == []


def test_waiting_metrics_share_a_request_and_the_order_of_all_else_is_kept(tmp_path: Path) -> None:
    outbox = Outbox.create(tmp_path)
    kinds = ["run", "params", *["metrics"] * (GATHERED_RECORDS + 5), "tags", "metrics", "end"]
    for number, kind in enumerate(kinds):
        outbox.append({"kind": kind, "number": number})
    requests: list[list[int]] = []
    sent = deliver(outbox, lambda records: requests.append([r["number"] for r in records]))
    assert sent == len(kinds)
    assert [number for request in requests for number in request] == list(range(len(kinds)))
    assert [len(request) for request in requests] == [1, 1, GATHERED_RECORDS, 5, 1, 1, 1]
    assert outbox.is_empty()


def test_a_server_that_goes_away_between_two_requests_is_owed_only_the_second(
    tmp_path: Path,
) -> None:
    outbox = Outbox.create(tmp_path)
    for number in range(GATHERED_RECORDS + 5):
        outbox.append({"kind": "metrics", "number": number})
    taken: list[int] = []

    def one_request_then_away(records: Sequence[Mapping[str, int]]) -> None:
        if taken:
            raise ConnectionError
        taken.extend(record["number"] for record in records)

    with pytest.raises(ConnectionError):
        deliver(outbox, one_request_then_away)
    assert [record["number"] for _, record in outbox.pending()] == list(
        range(GATHERED_RECORDS, GATHERED_RECORDS + 5)
    )
