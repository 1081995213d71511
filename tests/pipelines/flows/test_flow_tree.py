"""The flows of one comparison as Prefect's server records them, and what a second start repeats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.testing.utilities import prefect_test_harness
from pydantic import TypeAdapter
from tiny_data import write_set

from pipelines.comparing.jobs import Request, TrainJob
from pipelines.comparing.preparing import Preparation, Tally, missing_chunks, prepare_chunk
from pipelines.flows.compare import compare
from pipelines.flows.deployment_file import deployment_file
from pipelines.flows.evaluate import score_fold
from pipelines.flows.gpu_slot import limit_name, slot_name
from pipelines.flows.preprocess import prepare, preprocess
from pipelines.flows.retrying import is_transient
from pipelines.flows.runner import run_flow
from pipelines.flows.schedules import BY_HAND
from pipelines.flows.train import fit, train, train_fold
from pipelines.flows.weekly import weekly
from segmed.errors import ImageError, ManifestError, ServiceError, UsageError
from segmed.plan import read_plan, write_plan
from segmed.preprocessing import PreparedCache
from segmed.training import Budget, Settings

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def temporary_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def preparation_in(folder: Path, *, training: int = 4, test: int = 0) -> Preparation:
    manifest = write_set(folder, training=training, test=test)
    return Preparation.parse(manifest, folder / "plan.yaml", folder / "cache")


def request_in(folder: Path) -> Request:
    return Request.parse(
        write_set(folder / "set", steps=30),
        models="unet",
        folds="0",
        plan=folder / "set" / "plan.yaml",
        budget=Budget(epochs=1),
        out_dir=folder / "out",
        register="cubes",
        settings=Settings(resume=True, device="cpu"),
    ).in_folder(folder)


def test_only_missing_training_cases_are_prepared(tmp_path: Path) -> None:
    preparation = preparation_in(tmp_path, training=5, test=2)
    chunks = missing_chunks(preparation)
    assert sorted(name for chunk in chunks for name in chunk.case_ids) == [
        f"case{number}" for number in range(5)
    ]
    assert [(chunk.first, chunk.last, chunk.of) for chunk in chunks] == [
        (1, 2, 5),
        (3, 4, 5),
        (5, 5, 5),
    ]
    tally = Tally(of=5)
    assert prepare_chunk(chunks[0], tally) == tally.done == 2
    assert [chunk.case_ids for chunk in missing_chunks(preparation)] == [
        ("case2",),
        ("case3",),
        ("case4",),
    ]


def test_stopped_chunk_ends_after_the_case_in_hand(tmp_path: Path) -> None:
    chunk = missing_chunks(preparation_in(tmp_path, training=8))[0]
    tally = Tally(of=8)
    tally.is_stopped.set()
    assert len(chunk.case_ids) == 2
    assert prepare_chunk(chunk, tally) == tally.done == 0


@pytest.mark.parametrize("kind", ["image", "label"])
def test_unreadable_case_is_named_before_any_training(tmp_path: Path, kind: str) -> None:
    preparation = preparation_in(tmp_path)
    path = tmp_path / f"case2_{kind}.nii"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ManifestError, match="case2"):
        _ = [prepare_chunk(chunk, Tally(of=4)) for chunk in missing_chunks(preparation)]


@pytest.mark.parametrize("part", ["labels", "channels"])
def test_deployed_preparation_refuses_the_plan_of_another_set(tmp_path: Path, part: str) -> None:
    preparation = preparation_in(tmp_path)
    plan = read_plan(preparation.plan_path)
    other = {
        "labels": plan.labels[:1],
        "channels": (*plan.channels, plan.channels[0].model_copy(update={"name": "t9"})),
    }
    write_plan(plan.model_copy(update={part: other[part]}), preparation.plan_path)
    with pytest.raises(UsageError, match=r"plan|channels"):
        missing_chunks(preparation)
    assert not preparation.cache_dir.exists()


def test_services_and_shares_are_tried_again_and_bad_input_is_not() -> None:
    for error in (ServiceError("away"), OSError(5, "Input/output error"), ConnectionError()):
        assert is_transient(error)
    for lasting in (
        ManifestError("x"),
        ImageError("x", reason="unreadable"),
        UsageError("x"),
        FileNotFoundError(),
        PermissionError(),
        OSError(28, "No space left on device"),
        KeyboardInterrupt(),
        ZeroDivisionError(),
    ):
        assert not is_transient(lasting), lasting


def test_trainings_are_never_retried() -> None:
    assert not any(each.retries for each in (fit, train, train_fold, compare, weekly))
    assert prepare.retries
    assert score_fold.retries


def test_requests_of_deployed_runs_come_back_from_json(tmp_path: Path) -> None:
    request = request_in(tmp_path)
    jobs: list[tuple[type, Any]] = [
        (Request, request),
        (TrainJob, request.jobs(tmp_path / "plan.yaml")[0]),
        (Preparation, Preparation(tmp_path / "m.json", tmp_path / "p.yaml", tmp_path / "cache")),
    ]
    for kind, job in jobs:
        adapter = TypeAdapter(kind)
        assert adapter.validate_json(adapter.dump_json(job)) == job


def test_file_of_deployments_is_fresh() -> None:
    path = REPOSITORY / "pipelines" / "prefect.yaml"
    assert path.read_text(encoding="utf-8") == deployment_file(), (
        "outdated: run `python docs/make_reference.py`"
    )
    found = yaml.safe_load(deployment_file())["deployments"]
    names = [entry["name"] for entry in found]
    assert names == ["nightly", "on-demand", "weekly", "monthly", *BY_HAND]
    assert [entry["name"] for entry in found if entry.get("triggers")] == [
        "nightly",
        "weekly",
        "monthly",
    ]
    assert {entry["work_pool"]["name"] for entry in found} == {"segmed"}


def test_one_gpu_has_one_limit_whatever_a_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = slot_name("cpu")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [limit_name(number) for number in (None, 0, 2)] == [
        machine,
        f"{machine}-0",
        f"{machine}-2",
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    assert [limit_name(number) for number in (0, 1)] == [f"{machine}-3", f"{machine}-1"]


def children(client: SyncPrefectClient, parent: FlowRun) -> list[FlowRun]:
    """Flow runs right below one, in the order of their starts."""
    below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]))
    found = client.read_flow_runs(flow_run_filter=below)
    return sorted(found, key=lambda run: run.start_time or run.created)


def tree(client: SyncPrefectClient, run: FlowRun) -> list[tuple[str, str, str]]:
    """Flow, name of the run and flow of its parent, for all runs below one, in order."""
    parent = client.read_flow(run.flow_id).name
    rows = []
    for child in children(client, run):
        rows.append((client.read_flow(child.flow_id).name, child.name, parent))
        rows += tree(client, child)
    return rows


def newest(client: SyncPrefectClient, flow: str) -> FlowRun:
    runs = [run for run in client.read_flow_runs() if client.read_flow(run.flow_id).name == flow]
    return max(runs, key=lambda run: run.start_time or run.created)


@pytest.mark.slow
def test_comparison_shows_the_whole_chain_and_repeats_nothing(
    temporary_server: None, working_folder: Path
) -> None:
    request = request_in(working_folder)
    run_flow(compare, request)
    with get_client(sync_client=True) as client:
        first = newest(client, "compare")
        assert first.name == "cubes-unet-1-fold"
        rows = tree(client, first)
        assert [(flow, parent) for flow, _, parent in rows] == [
            ("preprocess", "compare"),
            ("train", "compare"),
            ("evaluate", "train"),
            ("register", "compare"),
        ]
        assert [name for _, name, _ in rows] == [
            "preprocess cubes.json",
            "train unet fold 0",
            "evaluate unet fold 0",
            "register cubes",
        ]
    before = {path: path.stat().st_mtime_ns for path in (request.out_dir / "cache").rglob("*")}
    assert before
    run_flow(compare, replace(request, settings=replace(request.settings, resume=False)))
    with get_client(sync_client=True) as client:
        second = newest(client, "compare")
        assert second.id != first.id
        (prepared, *_) = children(client, second)
        assert prepared.name == "preprocess cubes.json"
        assert not task_names(client, prepared), "cases were prepared again"
    after = {path: path.stat().st_mtime_ns for path in (request.out_dir / "cache").rglob("*")}
    assert after == before


def task_names(client: SyncPrefectClient, run: FlowRun) -> list[str]:
    only = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    return sorted(task.name for task in client.read_task_runs(flow_run_filter=only))


@pytest.mark.slow
def test_preprocessing_fills_the_cache_in_named_chunks(
    temporary_server: None, tmp_path: Path
) -> None:
    preparation = preparation_in(tmp_path, training=6)
    assert run_flow(preprocess, preparation) == 6
    with get_client(sync_client=True) as client:
        names = task_names(client, newest(client, "preprocess"))
    assert names == ["cases 1 to 2 of 6", "cases 3 to 4 of 6", "cases 5 to 6 of 6"]
    assert run_flow(preprocess, preparation) == 0


@pytest.mark.slow
def test_training_alone_takes_its_gpu_place_after_preprocessing(
    temporary_server: None, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_in(working_folder)
    assert request.plan_path is not None
    (job,) = request.jobs(request.plan_path)
    seen: list[int] = []
    real = PreparedCache.content

    def look(*args: Any) -> Any:
        seen.append(active_slots())
        return real(*args)

    monkeypatch.setattr(PreparedCache, "content", look)
    run_flow(train, job, working_folder)
    assert seen == [0] * 4
    assert active_slots() == 0
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(slot_name("cpu")).limit == 1
        rows = tree(client, newest(client, "train"))
    assert [flow for flow, _, _ in rows] == ["preprocess", "evaluate"]


def active_slots() -> int:
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(slot_name("cpu")).active_slots
        except ObjectNotFound:
            return 0
