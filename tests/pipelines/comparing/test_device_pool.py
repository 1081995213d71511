"""Trainings side by side: as many as asked for, each on its own, with the results of one by one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prefect.testing.utilities import prefect_test_harness
from tiny_data import write_set

from pipelines.comparing.device_pool import DevicePool, make_device_pool
from pipelines.comparing.jobs import Request, TrainJob
from pipelines.flows.compare import compare
from pipelines.flows.gpu_slot import held_devices
from pipelines.flows.runner import run_flow
from segmed.errors import ServiceError, TrainingError, UsageError
from segmed.package import ModelPackage
from segmed.training import Budget, EpochResult, Settings


def test_device_pool_shares_out_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    pool = make_device_pool(3, "cpu")
    assert pool.devices == ("cpu", "cpu", "cpu")
    assert pool.threads == 2
    assert make_device_pool(0, "cpu").devices == ("cpu",)
    with pytest.raises(UsageError, match="--side-by-side 9: this machine has 8 cores"):
        make_device_pool(9, "cpu")
    with pytest.raises(UsageError, match="one training a GPU"):
        make_device_pool(2, "cuda:0")


def test_a_device_is_lent_to_one_training_at_a_time() -> None:
    pool = DevicePool(("cuda:0", "cuda:1"), threads=1)
    with pool.device() as first, pool.device() as second:
        assert {first, second} == {"cuda:0", "cuda:1"}
        waiting = threading.Thread(target=lambda: pool.device().__enter__())
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(5)
    assert not waiting.is_alive()


def job_of(manifest: Path, out_dir: Path, epochs: int) -> TrainJob:
    plan = manifest.with_name("plan.yaml")
    return TrainJob(
        manifest, plan, "unet", 0, Budget(epochs=epochs), out_dir, Settings(device="cpu")
    )


def test_errors_of_a_training_come_back_by_name(tmp_path: Path) -> None:
    job = replace(job_of(write_set(tmp_path), tmp_path / "out", 1), fold=7)
    with pytest.raises(UsageError, match="fold 7 is not in manifest"):
        DevicePool(("cpu",), threads=1).train(job, "cpu", lambda _: None)


def test_a_killed_training_is_named_and_one_told_to_stop_saves(tmp_path: Path) -> None:
    job = job_of(write_set(tmp_path), tmp_path / "out", 100_000)
    pool = DevicePool(("cpu",), threads=1)

    def end_by(number: signal.Signals) -> None:
        def end(_result: EpochResult) -> None:
            (process,) = pool._processes.values()
            os.kill(process.pid, number)

        pool.train(job, "cpu", end)

    with pytest.raises(TrainingError, match="the process that trained unet fold 0 died"):
        end_by(signal.SIGKILL)
    job = replace(job, settings=replace(job.settings, resume=True))
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM"):
        end_by(signal.SIGTERM)
    assert (job.run_dir / "last.ckpt").exists()
    pool.stop()
    with pytest.raises(KeyboardInterrupt, match="before it began"):
        pool.train(job, "cpu", lambda _: None)


def test_one_process_trains_and_scores_and_another_follows_a_dead_one(tmp_path: Path) -> None:
    job = job_of(write_set(tmp_path), tmp_path / "out", 1)
    pool = DevicePool(("cpu", "cpu"), threads=1)
    with pool.placed(job) as placed:
        pool.train(placed, "cpu", lambda _: None)
        (process,) = pool._processes.values()
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(TrainingError, match="the process that trained unet fold 0 died"):
            pool.score(placed, "cpu")
        pool.score(placed, "cpu")
    assert (job.run_dir / "scores.parquet").exists()
    assert not pool._processes
    assert not multiprocessing.active_children()


def test_training_stops_where_an_epoch_cannot_be_tracked(tmp_path: Path) -> None:
    job = job_of(write_set(tmp_path), tmp_path / "out", 100_000)

    def away(_result: EpochResult) -> None:
        raise ServiceError("the tracking server is away")

    pool = DevicePool(("cpu", "cpu"), threads=1)
    with pytest.raises(ServiceError, match="away"), pool.placed(job) as placed:
        pool.train(placed, "cpu", away)
    assert not multiprocessing.active_children()
    assert (job.run_dir / "last.ckpt").exists()


def test_process_of_a_trained_job_ends_where_nobody_scores_it(tmp_path: Path) -> None:
    job = job_of(write_set(tmp_path), tmp_path / "out", 1)
    pool = DevicePool(("cpu", "cpu"), threads=1)
    with pool.placed(job) as placed:
        pool.train(placed, "cpu", lambda _: None)
        assert len(multiprocessing.active_children()) == 1
    assert not multiprocessing.active_children()


@pytest.fixture(scope="module")
def temporary_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.slow
def test_side_by_side_gives_the_weights_of_one_by_one(
    temporary_server: None, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    manifest = write_set(working_folder / "set")
    request = Request.parse(
        manifest,
        models="unet,unetpp",
        folds="all",
        plan=manifest.with_name("plan.yaml"),
        budget=Budget(epochs=2),
        out_dir=working_folder / "turns",
        settings=Settings(device="cpu", deterministic=True),
    ).in_folder(working_folder)
    beside = replace(request, out_dir=working_folder / "beside", side_by_side=2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each training beside another one has: sums differ by threads
    try:
        first = run_flow(compare, request)
    finally:
        torch.set_num_threads(before)
    second = run_flow(compare, beside)
    assert first["failures"] == second["failures"] == []
    for name in ("unet", "unetpp"):
        for fold in (0, 1):
            place = Path("runs") / name / f"fold{fold}" / "package"
            one = ModelPackage.load(request.out_dir / place)
            other = ModelPackage.load(beside.out_dir / place)
            assert one.hash == other.hash, (name, fold)
    assert second["ensembles"]["unet"]["hash"] == first["ensembles"]["unet"]["hash"]


@pytest.mark.slow
def test_two_flow_runs_do_not_train_on_one_gpu_at_once(temporary_server: None) -> None:
    moments: list[tuple[float, float]] = []

    def hold() -> None:
        with held_devices(("cpu",)):
            begin = time.monotonic()
            time.sleep(0.5)
            moments.append((begin, time.monotonic()))

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (_, first_end), (second_begin, _) = sorted(moments)
    assert second_begin >= first_end
