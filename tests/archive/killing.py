"""Archive runs in a process that is killed at random moments, and continued."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import torch
from fresh_processes import fresh_process

from segmed.archive import FolderSource, Ledger, RunOptions, segment_archive
from segmed.inference import Predictor
from segmed.package import ModelPackage


def run_to_its_end(root: Path, package: Path, out: Path) -> None:
    """One undisturbed run in a process of its own, with the model of a folder."""
    child = fresh_process(_run, root, package, out)
    child.start()
    child.join()
    assert child.exitcode == 0


def run_and_kill(
    root: Path,
    package: Path,
    out: Path,
    *,
    calm: Path,
    kills: int,
    longest_s: float,
    seed: int,
) -> int:
    """Runs that are killed at random moments of their work; returns how many died of it.

    After each kill every output that is there must be the undisturbed run's (`calm`), byte by byte.
    """
    moments = random.Random(seed)
    died = 0
    for _ in range(kills):
        before = len(visible(out))
        child = fresh_process(_run, root, package, out)
        child.start()
        deadline = time.monotonic() + longest_s
        more = moments.randint(0, 2)
        while child.is_alive() and len(visible(out)) < before + more:
            if time.monotonic() > deadline:
                break
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.05))
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        died += child.exitcode == -signal.SIGKILL
        whole = visible(calm)
        assert all(whole[name] == content for name, content in visible(out).items())
    return died


def visible(out: Path) -> dict[str, bytes]:
    """The segmentations under their final names, with their bytes."""
    root = out / "segmentations"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("[!.]*")
        if path.is_file() and ".staging" not in path.parts
    }


def _run(root: Path, package: Path, out: Path) -> None:
    torch.set_num_threads(1)
    predictor = Predictor(ModelPackage.load(package), device="cpu", engine="torch")
    for _ in segment_archive(
        FolderSource(root), predictor=predictor, out_dir=out, options=RunOptions(min_free_bytes=0)
    ):
        pass


def ends(out: Path) -> dict[str, tuple[str, str, str | None]]:
    """State, reason and output digest of every study, by key."""
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        return {
            entry.key: (entry.state, entry.reason, entry.output_sha256)
            for entry in ledger.entries()
        }


def attempts(out: Path) -> int:
    """Number of attempts, all studies together."""
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        return sum(entry.attempts for entry in ledger.entries())


def files(out: Path) -> dict[str, bytes]:
    """Every file among the segmentations, hidden ones too, with its bytes."""
    root = out / "segmentations"
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
