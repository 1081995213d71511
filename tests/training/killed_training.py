"""Trainings in processes of their own that are killed at random moments, and resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from fresh_processes import fresh_process
from narrow_training import start

from segmed.manifest import Manifest
from segmed.plan import Plan
from segmed.training import Budget
from segmed.training.checkpoint import Checkpoint, load_checkpoint

LONGEST_S = 120.0
"""A child that does nothing for this long is stuck."""


@dataclass(frozen=True)
class Place:
    """Arguments of a training and the places of its files."""

    manifest: Manifest
    plan: Plan
    budget: Budget
    out_dir: Path
    cache_dir: Path


def run_to_its_end(place: Place) -> None:
    """Start or resume, undisturbed."""
    child = fresh_process(_train, place)
    child.start()
    child.join(LONGEST_S)
    assert child.exitcode == 0


def run_and_kill(place: Place, moments: random.Random) -> bool:
    """Start or resume, and kill after up to two more checkpoints and a moment.

    Returns:
        Whether the training died of it.
    """
    child = fresh_process(_train, place)
    child.start()
    wanted, seen = moments.randint(0, 2), 0
    last = _stamp(place.out_dir)
    deadline = time.monotonic() + LONGEST_S
    while child.is_alive() and seen < wanted:
        now = _stamp(place.out_dir)
        seen, last = seen + (now != last), now
        assert time.monotonic() < deadline, "the training does not get on"
        time.sleep(0.001)
    time.sleep(moments.uniform(0.0, 0.03 if wanted else 0.5))
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    return child.exitcode == -signal.SIGKILL


def standing(out_dir: Path) -> Checkpoint | None:
    """The last checkpoint, if there is one yet; every file that is there must be readable."""
    for path in out_dir.glob("[!.]*.ckpt"):  # the partial file of a killed writer has a dot
        load_checkpoint(path, run={})
    if (out_dir / "history.jsonl").exists():
        lines = (out_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [*range(1, len(lines) + 1)]
    last = out_dir / "last.ckpt"
    return load_checkpoint(last, run={}) if last.exists() else None


def _stamp(out_dir: Path) -> int:
    try:
        return (out_dir / "last.ckpt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _train(place: Place) -> None:
    torch.set_num_threads(1)
    for _ in start(
        place.manifest,
        place.plan,
        place.out_dir,
        place.cache_dir,
        budget=place.budget,
        resume=True,
        checkpoint_minutes=0.0,  # a checkpoint after every step
    ):
        pass
