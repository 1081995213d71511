"""Two processes under `torchrun` (gloo, CPU) train one network, as one process would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segmed.package import ModelPackage
from segmed.plan import Plan, write_plan
from segmed.training.distributed import ProcessGroup

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "train_in_process_group.py"
SAMPLE = HERE.parents[1] / "data_manifests" / "hippocampus_sample.json"


@pytest.fixture
def evenly_weighted(plan: Plan) -> Plan:
    """A loss that is a mean over patches, so that two halves average to the whole."""
    network = plan.networks["unet"].model_copy(update={"loss": "unet_weighted_ce"})
    return plan.model_copy(update={"networks": {"unet": network}})


def prepare(folder: Path, plan: Plan) -> Path:
    folder.mkdir()
    write_plan(plan, folder / "plan.yaml")
    return folder


def launch(folder: Path, budget: str, *, processes: int) -> subprocess.Popen[str]:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(SCRIPT), str(folder), str(SAMPLE), budget],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(folder: Path, budget: str, *, processes: int) -> list[dict[str, Any]]:
    """Output of each process, by rank."""
    child = launch(folder, budget, processes=processes)
    output, _ = child.communicate(timeout=200)
    assert child.returncode == 0, output
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]


def test_a_group_of_one_process_agrees_with_itself() -> None:
    group = ProcessGroup()
    assert (
        group.agree(0.3),
        group.mean(2.0),
        group.any(True),
        group.any(False),
    ) == (
        0.3,
        2.0,
        True,
        False,
    )
    assert group.share(3) == slice(0, 3)


@pytest.mark.parametrize(
    ("batch_size", "size", "whole"), [(2, 4, 4), (2, 3, 3), (8, 3, 9), (4, 2, 4), (5, 1, 5)]
)
def test_every_process_has_as_many_patches_and_no_patch_is_lost(
    batch_size: int, size: int, whole: int
) -> None:
    groups = [ProcessGroup(rank=rank, size=size) for rank in range(size)]
    assert groups[0].whole_batch(batch_size) == whole
    shares = [range(whole)[group.share(whole)] for group in groups]
    assert [patch for share in shares for patch in share] == list(range(whole))
    assert {len(share) for share in shares} == {whole // size}


@pytest.mark.slow
def test_more_processes_than_patches_train(plan: Plan, tmp_path: Path) -> None:
    """The documented line starts four processes, a plan of volumes has two patches a step."""
    assert plan.recipe.batch_size == 2
    ranks = train(prepare(tmp_path / "group", plan), "epochs=1", processes=4)
    assert {record["results"][-1]["step"] for record in ranks} == {4}
    assert all(record["has_package"] for record in ranks)


@pytest.mark.slow
def test_two_processes_train_the_network_of_one(evenly_weighted: Plan, tmp_path: Path) -> None:
    alone = prepare(tmp_path / "alone", evenly_weighted)
    folder = prepare(tmp_path / "group", evenly_weighted)
    (one,) = train(alone, "epochs=2", processes=1)
    first, second = train(folder, "epochs=2", processes=2)
    losses = [result["train_loss"] for result in one["results"]]
    assert [result["train_loss"] for result in first["results"]] == pytest.approx(losses, rel=1e-4)
    assert [result["train_loss"] for result in second["results"]] == pytest.approx(losses, rel=1e-4)
    assert all(result["val_dice"] for result in first["results"])
    assert not any(result["val_dice"] for result in second["results"])
    assert first["has_package"]
    assert second["has_package"]


@pytest.mark.slow
def test_the_planned_loss_of_two_processes_is_near_that_of_one(plan: Plan, tmp_path: Path) -> None:
    """Dice counts a batch as one volume; each of two processes sees half of the batch."""
    (one,) = train(prepare(tmp_path / "alone", plan), "epochs=2", processes=1)
    together, _ = train(prepare(tmp_path / "group", plan), "epochs=2", processes=2)
    losses = [result["train_loss"] for result in one["results"]]
    assert [result["train_loss"] for result in together["results"]] == pytest.approx(
        losses, rel=0.05
    )


@pytest.mark.slow
def test_a_time_budget_ends_both_processes_at_the_same_step(plan: Plan, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "group", plan)
    first, second = train(folder, "seconds=25", processes=2)
    assert len(first["results"]) > 1
    steps = [[result["step"] for result in record["results"]] for record in (first, second)]
    assert steps[0] == steps[1]
    losses = [[result["train_loss"] for result in record["results"]] for record in (first, second)]
    assert losses[0] == losses[1]
    package = ModelPackage.load(folder / "run" / "package")
    assert package.provenance["steps"] == steps[0][-1]


@pytest.mark.slow
def test_sigterm_to_a_process_group_saves_and_resume_goes_on(plan: Plan, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "group", plan)
    child = launch(folder, "epochs=5000", processes=2)
    deadline = time.monotonic() + 120
    while not (folder / "epoch2.rank1").exists():
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert (folder / "run" / "last.ckpt").exists()
    records = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert all(record["stopped"] for record in records)
    done = len(records[0]["results"])
    first, second = train(folder, f"epochs={done + 1}", processes=2)
    assert first["results"][-1]["epoch"] == done + 1
    assert len(second["results"]) == len(first["results"])
