"""Checkpoints written by a thread, as on a GPU: of one moment, whole, and errors are not lost."""

from __future__ import annotations

import copy
import os
import resource
import signal
import threading
from pathlib import Path

import pytest
import torch
from fresh_processes import fresh_process
from test_nothing_lost import files_of_at_most
from tiny_data import tiny_plan

from segmed.errors import TrainingError
from segmed.training import Budget
from segmed.training.checkpoint import load_checkpoint
from segmed.training.device import Device, choose_device
from segmed.training.distributed import ProcessGroup
from segmed.training.run_files import EPOCH_S, RunFiles
from segmed.training.snapshot import BackgroundWriter, HostCopy
from segmed.training.trainer import Trainer

CPU = torch.device("cpu")
PARTS = ("model", "averaged")


def trainer_of(device: Device | None = None) -> Trainer:
    torch.manual_seed(0)
    device = device or choose_device("cpu")
    return Trainer("unet", tiny_plan(steps=4), device=device, process_group=ProcessGroup())


def files_in(folder: Path, *, minutes: float = 5.0) -> RunFiles:
    return RunFiles(folder, {"seed": 0}, Budget(epochs=2), minutes, CPU, in_thread=True)


def fill(trainer: Trainer, value: float) -> None:
    """Every weight and every averaged weight is this value."""
    with torch.no_grad():
        for tensor in [*trainer.network.state_dict().values(), *trainer.averaged.values()]:
            tensor.fill_(value)


def save(files: RunFiles, trainer: Trainer, step: int, **more: object) -> None:
    fill(trainer, float(step))
    files.save(
        trainer,
        step=step,
        elapsed_s=0.0,
        is_finished=False,
        history=[],
        tally={"loss": 1.0},
        **more,
    )


def values(path: Path) -> tuple[int, set[float]]:
    """Step of a checkpoint and all values in its weights."""
    found = load_checkpoint(path, run={})
    tensors = [tensor for part in PARTS for tensor in vars(found)[part].values()]
    return found.step, {value for tensor in tensors for value in tensor.unique().tolist()}


def test_a_checkpoint_is_of_the_moment_at_which_it_was_taken(tmp_path: Path) -> None:
    trainer, files = trainer_of(), files_in(tmp_path)
    gate = threading.Event()
    files._writer.start(gate.wait)
    copied = files._copy.take({"a": torch.ones(3)})
    assert not files.are_due
    gate.set()
    save(files, trainer, 7, is_best=True)
    fill(trainer, -1.0)  # the next step
    files.finish()
    assert values(tmp_path / "last.ckpt") == (7, {7.0})
    assert values(tmp_path / "best.ckpt") == (7, {7.0})
    assert copied["a"].shape == (3,)
    files.close()


def test_losses_that_only_the_device_knows_are_in_the_checkpoint(tmp_path: Path) -> None:
    trainer, files = trainer_of(), files_in(tmp_path)
    unread = torch.tensor(2.5)
    save(files, trainer, 1, unread=unread)
    unread.zero_()
    files.finish()
    assert load_checkpoint(tmp_path / "last.ckpt", run={}).tally == {"loss": 3.5}
    save(files, trainer, 2, unread=torch.tensor(float("nan")))
    files.close()
    assert load_checkpoint(tmp_path / "last.ckpt", run={}).step == 1


def test_a_full_disk_is_reported_by_the_next_step(tmp_path: Path) -> None:
    trainer, files = trainer_of(), files_in(tmp_path)
    save(files, trainer, 1)
    files.finish()
    with files_of_at_most(2_000):
        save(files, trainer, 2)
        wait_for(files._writer)
    with pytest.raises(TrainingError, match="no space left"):
        assert files.are_due
    assert values(tmp_path / "last.ckpt") == (1, {1.0})
    files.close()


def wait_for(writer: BackgroundWriter | None) -> None:
    assert writer is not None
    assert writer._running is not None
    writer._running.exception()


def test_short_epochs_share_a_checkpoint_and_time_brings_the_next(tmp_path: Path) -> None:
    trainer, files = trainer_of(), files_in(tmp_path, minutes=5.0)
    save(files, trainer, 1)
    files.finish()
    assert files.are_fresh
    assert not files.are_due
    files.saved_at -= EPOCH_S + 1
    assert not files.are_fresh
    assert not files.are_due
    files.saved_at -= 300
    assert files.are_due
    files.close()
    assert not RunFiles(tmp_path, {}, Budget(epochs=2), 5.0).are_fresh  # on a CPU each has its own


def test_a_copy_keeps_its_memory_and_its_form() -> None:
    copy = HostCopy(CPU)
    state = {"a": torch.arange(4.0), "b": [{"n": 3, "c": torch.ones(2, dtype=torch.int64)}, None]}
    first = copy.take(state)
    assert first["b"][0]["n"] == 3
    assert first["b"][1] is None
    state["a"].add_(1)
    assert first["a"].tolist() == [0, 1, 2, 3]
    again = copy.take(state)
    assert again["a"].data_ptr() == first["a"].data_ptr()
    larger = copy.take({**state, "more": torch.ones(1)})
    assert larger["more"].tolist() == [1]


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint_of_one_step(tmp_path: Path) -> None:
    reached = 0
    for number in range(4):
        child = fresh_process(_save_on_and_on, tmp_path, reached + 1)
        child.start()
        while not (tmp_path / f"at{reached + 2 + number}").exists():
            assert child.is_alive()
            child.join(0.005)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        step, found = values(tmp_path / "last.ckpt")
        assert found == {float(step)}
        assert step > reached
        reached = step


def _save_on_and_on(folder: Path, first: int) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    trainer, files = trainer_of(), files_in(folder)
    for step in range(first, first + 100_000):
        save(files, trainer, step)
        (folder / f"at{step}").touch()


def test_the_scale_of_float16_continues_where_it_was() -> None:
    half = Device(CPU, torch.float16, "float16, as on a GPU without bfloat16")
    trainer, other = trainer_of(half), trainer_of(half)
    image = torch.randn(2, 1, *trainer.plan.patch_size)
    label = torch.randint(0, 2, (2, *trainer.plan.patch_size))
    for _ in range(3):
        trainer.update(image, label)
    trainer._scaler.update(new_scale=1024.0)
    state = trainer.state()
    assert state["scaler"]["scale"] == 1024.0
    other.load_state(copy.deepcopy(state))
    assert other.state()["scaler"] == state["scaler"]
    for _ in range(2):
        ours, expected = (each.update(image, label) for each in (other, trainer))
        assert torch.equal(ours, expected)
    for name, tensor in trainer.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name]), name


def test_checkpoints_without_a_scale_are_still_read() -> None:
    trainer, other = trainer_of(), trainer_of()
    assert trainer.state()["scaler"] == {}
    other.load_state({key: value for key, value in trainer.state().items() if key != "scaler"})
