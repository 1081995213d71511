"""A training that would not fit is refused before it starts, with what would."""

from __future__ import annotations

import re

import pytest
import torch

from segmed.errors import TrainingError
from segmed.plan import Plan
from segmed.training.device import Device
from segmed.training.memory import (
    estimate_step_bytes,
    explained_memory_errors,
    free_bytes,
    require_memory,
)

CPU = Device(torch.device("cpu"), None, "cpu")


def need(plan: Plan, *, batch_size: int = 2) -> int:
    return estimate_step_bytes("unet", plan, batch_size=batch_size, device=CPU)


def test_activations_grow_with_the_batch_and_weights_do_not(plan: Plan) -> None:
    one, two, three = (need(plan, batch_size=size) for size in (1, 2, 3))
    assert two - one == pytest.approx(three - two, rel=1e-3)
    assert two < 2 * one
    assert two - one > 0.5 * one


def test_estimate_counts_every_map_that_the_backward_pass_keeps(plan: Plan) -> None:
    """At least input-sized maps of the finest level: two convolutions, norms and activations."""
    voxels = 2 * 16 * 24 * 16
    finest = plan.networks["unet"].options["widths"][0]
    assert need(plan) > 2 * 4 * (6 * finest * voxels)


def test_what_fits_is_let_through(plan: Plan) -> None:
    require_memory(need(plan), CPU, plan, batch_size=2)


def test_refusal_names_the_batch_that_would_fit(plan: Plan) -> None:
    wish = 8 * free_bytes(CPU)
    with pytest.raises(TrainingError, match=r"needs about .* GB on cpu.* a batch of \d+ would fit"):
        require_memory(wish, CPU, plan, batch_size=64)
    with pytest.raises(TrainingError, match="GB are free") as caught:
        require_memory(wish, CPU, plan, batch_size=64)
    found = re.search(r"a batch of (\d+)", str(caught.value))
    assert found is not None
    assert 6 <= int(found.group(1)) <= 8  # an eighth of 64; free memory moves between two looks


def test_refusal_names_the_patch_that_would_fit_where_no_batch_does(plan: Plan) -> None:
    wish = 16 * free_bytes(CPU)
    with pytest.raises(TrainingError, match=r"a patch of about (\d+)x(\d+)x(\d+)") as caught:
        require_memory(wish, CPU, plan, batch_size=2)
    found = re.search(r"about (\d+)x(\d+)x(\d+) at batch 1 would fit", str(caught.value))
    assert found is not None
    smaller = [int(number) for number in found.groups()]
    voxels = smaller[0] * smaller[1] * smaller[2]
    assert voxels <= 16 * 24 * 16 / 8  # one patch instead of two is half of the missing sixteenth
    assert all(small < planned for small, planned in zip(smaller, plan.patch_size, strict=True))


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)
def test_memory_that_runs_out_is_reported_as_that(plan: Plan, failure: Exception) -> None:
    with (
        pytest.raises(
            TrainingError,
            match=r"out of memory with a batch of 2 patches of 16x24x16; a batch of 1 would fit",
        ),
        explained_memory_errors(plan, batch_size=2),
    ):
        raise failure


def test_other_errors_keep_their_meaning(plan: Plan) -> None:
    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        explained_memory_errors(plan, batch_size=2),
    ):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_an_allocation_that_really_fails_is_explained(plan: Plan) -> None:
    with (
        pytest.raises(TrainingError, match="out of memory with a batch of 4"),
        explained_memory_errors(plan, batch_size=4),
    ):
        torch.empty(2**60, dtype=torch.uint8)
