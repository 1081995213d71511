"""Two processes under `torchrun` (gloo, CPU) train one network, as one process would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from narrow_training import assert_equal, weights
from process_groups import launch, prepare

from segmed.package import ModelPackage
from segmed.plan import Plan


def train(folder: Path, budget: str, *, processes: int) -> list[dict[str, Any]]:
    """Output of each process, by rank."""
    child = launch(folder, budget, processes=processes)
    output, _ = child.communicate(timeout=600)
    assert child.returncode == 0, output
    return [
        json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8"))
        for rank in range(processes)
    ]


@pytest.mark.slow
def test_more_processes_than_patches_train(plan: Plan, tmp_path: Path) -> None:
    """The documented line starts four processes, a plan of volumes has two patches a step."""
    assert plan.recipe.batch_size == 2
    ranks = train(prepare(tmp_path / "group", plan), "epochs=1", processes=4)
    assert {record["results"][-1]["step"] for record in ranks} == {4}
    assert all(record["has_package"] for record in ranks)


@pytest.mark.slow
def test_two_processes_train_the_network_of_one_with_the_doubled_batch(
    plan: Plan, tmp_path: Path
) -> None:
    doubled = plan.recipe.model_copy(update={"batch_size": 2 * plan.recipe.batch_size})
    alone = prepare(tmp_path / "alone", plan.model_copy(update={"recipe": doubled}))
    folder = prepare(tmp_path / "group", plan)
    (one,) = train(alone, "epochs=2", processes=1)
    first, second = train(folder, "epochs=2", processes=2)
    losses = [result["train_loss"] for result in one["results"]]
    assert [result["train_loss"] for result in first["results"]] == pytest.approx(losses, rel=1e-3)
    for name in ("train_loss", "val_loss", "val_dice", "learning_rate"):
        seen = [[result[name] for result in rank["results"]] for rank in (first, second)]
        assert seen[0] == seen[1], name
    assert all(result["val_dice"] for result in first["results"])
    assert first["has_package"]
    assert second["has_package"]
    # The first process alone writes to the run's folder.
    kinds = {path.rpartition("-")[2] for path in first["written"]}
    assert {"last.ckpt", "best.ckpt", "history.jsonl"} <= kinds
    assert second["written"] == []
    assert ModelPackage.load(folder / "run" / "package").provenance["processes"] == 2
    # A case is prepared once, by either of the two.
    assert first["prepared"] + second["prepared"] == one["prepared"] == 5


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
@pytest.mark.parametrize("rank", [0, 1])
def test_resumed_group_has_the_weights_of_one_that_was_never_stopped(
    rank: int, plan: Plan, tmp_path: Path
) -> None:
    """SIGTERM to any one process stops all of them after the same step."""
    calm = prepare(tmp_path / "calm", plan)
    train(calm, "epochs=3", processes=2)
    folder = prepare(tmp_path / "stopped", plan)
    stopped = train(folder, f"epochs=3 SIGTERM {rank} 1", processes=2)
    assert all("stopped by" in record["stopped"] for record in stopped)
    done = [len(record["results"]) for record in stopped]
    assert done[0] == done[1] < 3
    resumed = train(folder, "epochs=3", processes=2)
    assert [record["results"][-1]["epoch"] for record in resumed] == [3, 3]
    assert_equal(weights(folder / "run"), weights(calm / "run"))


@pytest.mark.slow
def test_training_of_two_processes_is_not_continued_by_one(plan: Plan, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "group", plan)
    train(folder, "epochs=1", processes=2)
    child = launch(folder, "epochs=2", processes=1)
    output, _ = child.communicate(timeout=600)
    assert child.returncode != 0
    assert "is of a training by 2 process(es), now there are 1: start as many" in output


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_process_that_dies_ends_the_others_with_a_clear_error(
    rank: int, plan: Plan, tmp_path: Path
) -> None:
    folder = prepare(tmp_path / "group", plan)
    child = launch(folder, f"epochs=5000 SIGKILL {rank} 1", processes=2)
    output, _ = child.communicate(timeout=600)
    assert child.returncode != 0
    assert "TrainingError: another process of this training has ended" in output
    assert "with --resume" in output
