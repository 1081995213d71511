"""A step and a validation of two processes (gloo, CPU) are those of one with the doubled batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from process_groups import STEP, launch, prepare

from segmed.plan import Plan
from segmed.training.distributed import ProcessGroup


def one_step(folder: Path, kind: str, *, processes: int) -> list[dict[str, Any]]:
    """Loss, gradients, scores and collectives of one step of each process."""
    child = launch(folder, kind, processes=processes, script=STEP)
    output, _ = child.communicate(timeout=600)
    assert child.returncode == 0, output
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)]


def with_batch(plan: Plan, size: int) -> Plan:
    """The plan with so many patches a step, without clipping and without noise.

    Noise on a GPU has one seed a process.
    """
    augmentation = plan.recipe.augmentation.model_copy(update={"p_noise": 0.0})
    changes = {"batch_size": size, "gradient_clip": 1e9, "augmentation": augmentation}
    recipe = plan.recipe.model_copy(update=changes)
    return plan.model_copy(update={"recipe": recipe})


def test_a_process_alone_agrees_with_itself_without_collectives() -> None:
    group = ProcessGroup()
    assert group.agree(0.3) == pytest.approx(0.3)
    assert group.any(True)
    assert not group.any(False)
    group.wait()
    group.require_same(1.5, "weights")
    assert group.share(3) == slice(0, 3)
    assert group.identity == {}


@pytest.mark.parametrize(("batch_size", "size"), [(2, 4), (1, 3), (9, 2), (5, 1)])
def test_each_process_has_the_batch_of_the_plan_and_no_patch_twice(
    batch_size: int, size: int
) -> None:
    groups = [ProcessGroup(rank=rank, size=size) for rank in range(size)]
    whole = groups[0].whole_batch(batch_size)
    assert whole == batch_size * size
    shares = [range(whole)[group.share(batch_size)] for group in groups]
    assert [patch for share in shares for patch in share] == list(range(whole))
    cases = [case for group in groups for case in group.part_of(range(11))]
    assert sorted(cases) == list(range(11))


def test_seeds_of_processes_and_steps_are_disjoint() -> None:
    seeds = [
        ProcessGroup(rank=rank, size=4).seed(seed, step)
        for rank in range(4)
        for seed in (0, 1, 7)
        for step in range(50)
    ]
    assert len(set(seeds)) == len(seeds)
    torch.manual_seed(max(seeds))  # PyTorch takes them all


@pytest.mark.parametrize("kind", ["eager", pytest.param("graph", marks=pytest.mark.slow)])
def test_two_processes_have_the_gradients_of_one_with_the_doubled_batch(
    kind: str, plan: Plan, tmp_path: Path
) -> None:
    """The planned loss, whose Dice takes the batch of both processes as one volume."""
    assert plan.networks["unet"].loss == "dice_ce"
    (one,) = one_step(prepare(tmp_path / "one", with_batch(plan, 4)), kind, processes=1)
    first, second = one_step(prepare(tmp_path / "two", with_batch(plan, 2)), kind, processes=2)
    assert (*first["case_ids"], *second["case_ids"]) == one["case_ids"]
    assert first["loss"] == second["loss"] == pytest.approx(one["loss"], rel=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in one["gradients"].values())
    for name, gradient in one["gradients"].items():
        assert torch.equal(first["gradients"][name], second["gradients"][name]), name
        torch.testing.assert_close(
            first["gradients"][name], gradient, rtol=1e-3, atol=1e-4 * largest, msg=name
        )
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    assert first["seed"] != second["seed"]
    # The first process's progress and anybody's wish to stop came with the gradients.
    assert first["heard"] == second["heard"] == (0.25, True)
    # One collective for all gradients; the Dice adds up two rows of numbers for each head before.
    weights = sum(gradient.numel() for gradient in one["gradients"].values())
    assert [n for n in first["sums"] if n > 100] == [weights + 3]
    assert all(n == 2 * len(plan.labels) for n in first["sums"][:-1])
    # Each held-out case is scored in one process; the scores are, to the bit, those of one alone.
    assert first["scores"] == second["scores"] == first["scores_alone"]
    assert first["share_of_windows"] + second["share_of_windows"] == pytest.approx(1.0)
