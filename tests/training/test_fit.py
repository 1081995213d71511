"""Real trainings of a narrow network on real cases: what they leave, and that nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow_training import assert_equal, start, weights

from segmed.errors import TrainingError, UsageError
from segmed.manifest import Manifest
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.training import Budget
from segmed.training.checkpoint import load_checkpoint, write_whole
from segmed.training.phases import PHASES


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, so that equal trainings are equal to the bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out_dir = tmp_path_factory.mktemp("undisturbed")
    assert len(list(start(manifest, plan, out_dir, cache_dir))) == 2
    return out_dir


def test_training_leaves_checkpoints_history_and_a_package(undisturbed: Path) -> None:
    assert {path.name for path in undisturbed.iterdir()} == {
        "last.ckpt",
        "best.ckpt",
        "history.jsonl",
        "package",
    }
    package = ModelPackage.load(undisturbed / "package")
    assert package.architecture == "unet"
    assert package.provenance["fold"] == 0
    assert package.provenance["steps"] == 8
    assert package.provenance["data_hash"]
    assert package.provenance["budget"]["epochs"] == 2
    assert package.provenance["curves"]["step"] == [4, 8]
    assert all(value > 0 for value in package.provenance["curves"]["train_loss"])
    phases = package.provenance["phases_s"]
    assert set(phases) == set(PHASES) - {"graph"}
    assert min(phases["forward"], phases["backward"], phases["validation"]) > 0
    assert 100 < package.provenance["peak_memory_mb"] < 20_000


def test_interrupted_and_resumed_equals_undisturbed_to_the_bit(
    manifest: Manifest, plan: Plan, cache_dir: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = start(manifest, plan, tmp_path, cache_dir)
    assert next(run).epoch == 1
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        list(run)
    assert not (tmp_path / "package").exists()
    (rest,) = list(start(manifest, plan, tmp_path, cache_dir, resume=True))
    assert rest.epoch == 2
    assert_equal(weights(tmp_path), weights(undisturbed))


def test_resuming_what_is_finished_trains_no_further(
    manifest: Manifest, plan: Plan, cache_dir: Path, undisturbed: Path
) -> None:
    before = weights(undisturbed)
    assert list(start(manifest, plan, undisturbed, cache_dir, resume=True)) == []
    assert_equal(weights(undisturbed), before)


def test_another_seed_trains_another_network(
    manifest: Manifest, plan: Plan, cache_dir: Path, undisturbed: Path, tmp_path: Path
) -> None:
    list(start(manifest, plan, tmp_path, cache_dir, seed=1))
    name = next(iter(weights(undisturbed)))
    assert not torch.equal(weights(tmp_path)[name], weights(undisturbed)[name])


def test_checkpoint_of_another_run_is_refused(
    manifest: Manifest, plan: Plan, cache_dir: Path, undisturbed: Path
) -> None:
    with pytest.raises(TrainingError, match="belongs to another run: its seed"):
        list(start(manifest, plan, undisturbed, cache_dir, resume=True, seed=5))


def flipped(content: bytes) -> bytes:
    """One bit of a tensor changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda content: content[:2000], id="cut at the start"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut in half"),
        pytest.param(lambda content: content[:-1], id="one byte short"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda content: bytes(len(content)), id="zeros"),
        pytest.param(lambda _: b"<html>not found</html>", id="text"),
        pytest.param(flipped, id="one bit"),
    ],
)
def test_damaged_checkpoint_is_named_with_the_ways_to_go_on(
    tmp_path: Path, undisturbed: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(change((undisturbed / "last.ckpt").read_bytes()))
    (tmp_path / "best.ckpt").touch()
    with pytest.raises(TrainingError, match=r"is damaged \(.*copy best.ckpt .* without --resume"):
        load_checkpoint(path, run={})


@pytest.mark.parametrize("content", [[1, 2], {"schema_version": 1}, {"schema_version": 1, "x": 2}])
def test_other_content_in_place_of_a_checkpoint_is_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    with pytest.raises(TrainingError, match=r"is damaged .* without --resume"):
        load_checkpoint(path, run={})


def test_no_package_is_written_without_a_step(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"before the first step .* no package is written"):
        list(start(manifest, plan, tmp_path, cache_dir, budget=Budget(seconds=1e-9)))
    assert not (tmp_path / "package").exists()


def test_nan_loss_names_the_cases(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    network = plan.networks["unet"].model_copy(update={"learning_rate": 1e30})
    wild = plan.model_copy(update={"networks": {"unet": network}})
    with pytest.raises(TrainingError, match=r"loss is .* with cases hippocampus_"):
        list(start(manifest, wild, tmp_path, cache_dir, budget=Budget(epochs=4)))


def test_budget_too_short_for_a_few_steps_says_what_would_do(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"too short: a step .* give at least --budget \d+s"):
        list(start(manifest, plan, tmp_path, cache_dir, budget=Budget(seconds=0.01)))
    assert not (tmp_path / "package").exists()


def test_unknown_fold_lists_the_known_ones(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="fold 9 is not in manifest"):
        list(start(manifest, plan, tmp_path, cache_dir, fold=9))


def test_full_disk_is_named_and_the_last_checkpoint_stands(undisturbed: Path) -> None:
    checkpoint = load_checkpoint(undisturbed / "last.ckpt", run={})
    with pytest.raises(TrainingError, match="cannot write"):
        _save_to_full_disk(checkpoint)


def _save_to_full_disk(checkpoint: Any) -> None:
    def write(stream: Any) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    write_whole(Path("/dev/shm/segmed-test.ckpt"), write)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2.5h", 9000)]
)
def test_budget_reads_durations(text: str, seconds: float) -> None:
    assert Budget.parse(text) == Budget(seconds=seconds)
    assert Budget.parse(f"{text}-cpu") == Budget(seconds=seconds, clock="cpu")


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "5 minutes", "0s", "-cpu", "5m-gpu"])
def test_budget_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="budget"):
        Budget.parse(text)
