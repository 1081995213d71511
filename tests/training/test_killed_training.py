"""A training that is killed at any moment and resumed ends as if nothing had happened."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from killed_training import Place, run_and_kill, run_to_its_end, standing
from narrow_training import STEPS_PER_EPOCH, assert_equal, weights

from segmed.io.atomic import PARTIAL
from segmed.manifest import Manifest
from segmed.plan import Plan
from segmed.training import Budget

LEFT_BEHIND = {"last.ckpt", "best.ckpt", "history.jsonl", "package"}


def place(
    manifest: Manifest, plan: Plan, out_dir: Path, cache_dir: Path, *, epochs: int = 2
) -> Place:
    return Place(manifest, plan, Budget(epochs=epochs), out_dir, cache_dir)


def assert_kills_lose_nothing(killed: Place, calm: Place, *, kills: int, seed: int) -> None:
    """Kill and resume; each time the last checkpoint is whole and no older than before."""
    run_to_its_end(calm)
    moments = random.Random(seed)
    step = 0
    for number in range(kills):
        assert run_and_kill(killed, moments), f"the training ended before kill {number + 1}"
        checkpoint = standing(killed.out_dir)
        reached = checkpoint.step if checkpoint else 0
        assert reached >= step
        step = reached
    assert step > 0
    run_to_its_end(killed)
    assert_equal(weights(killed.out_dir), weights(calm.out_dir))
    assert {path.name for path in killed.out_dir.iterdir()} == LEFT_BEHIND


def test_two_kills_lose_nothing(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    calm = place(manifest, plan, tmp_path / "calm", cache_dir)
    killed = replace(calm, out_dir=tmp_path / "killed")
    assert_kills_lose_nothing(killed, calm, kills=2, seed=2)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    calm = place(manifest, plan, tmp_path / "calm", cache_dir, epochs=20)
    killed = replace(calm, out_dir=tmp_path / "killed")
    assert_kills_lose_nothing(killed, calm, kills=20, seed=1)
    assert standing(killed.out_dir).step == 20 * STEPS_PER_EPOCH


def test_a_kill_before_the_package_is_written_costs_no_training(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    done = place(manifest, plan, tmp_path / "run", cache_dir, epochs=1)
    run_to_its_end(done)
    before = weights(done.out_dir)
    checkpoint = (done.out_dir / "last.ckpt").read_bytes()
    shutil.rmtree(done.out_dir / "package")
    half = done.out_dir / f"{PARTIAL}0123456789ab"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    run_to_its_end(done)
    assert_equal(weights(done.out_dir), before)
    assert (done.out_dir / "last.ckpt").read_bytes() == checkpoint
    assert not half.exists()
