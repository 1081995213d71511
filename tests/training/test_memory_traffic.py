"""Gathering and shading of a batch move few bytes: on a GPU they are bound by memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import pytest
import torch
from test_resident_cases import CPU, cases_of, plan_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segmed.plan import Augmentation, Plan
from segmed.training.gathering import gather_patches
from segmed.training.resident import PatchRows, ResidentCases, patch_rows
from segmed.training.shading import shade

PICKS = ("index", "index_select", "gather")
"""Operations that read no more of their source than they give."""


class MovedBytes(TorchDispatchMode):
    """Counts the bytes that the operations of a block read and write, views left out.

    Attributes:
        total: Their sum.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation and count its bytes."""
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        held = {tensor.untyped_storage()._cdata for tensor in given}
        name = str(func).split(".")[1]
        is_view = all(tensor.untyped_storage()._cdata in held for tensor in made)
        if "empty" in name or (is_view and not func._schema.is_mutable):
            return result
        if name in PICKS:
            given = [
                *made,
                *(tensor for tensor in given if tensor.dtype in (torch.int32, torch.long)),
            ]
        self.total += sum(_size(tensor) for tensor in [*given, *made])
        return result


def _size(tensor: Tensor) -> int:
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


@pytest.fixture
def plan() -> Plan:
    augmentation = Augmentation(flip_axes=(0,), rotation_deg=(20.0,) * 3)
    return plan_of((48, 40, 56), augmentation, None)


@pytest.fixture
def resident(plan: Plan) -> tuple[ResidentCases, PatchRows]:
    cases = cases_of((60, 50, 70))
    held = ResidentCases.of(cases, plan, CPU)
    return held, patch_rows(cases, held, plan, seed=0, step=0)


def passes(plan: Plan, moved: MovedBytes) -> float:
    """Bytes as multiples of one channel of the batch, float32."""
    return moved.total / (4 * plan.recipe.batch_size * prod(plan.patch_size))


def test_gathering_a_batch_moves_few_times_its_size(
    plan: Plan, resident: tuple[ResidentCases, PatchRows]
) -> None:
    """Of two channels: 310; index maps of 64 bits for each of the eight corners moved 906."""
    voxels, rows = resident
    with MovedBytes() as moved:
        gather_patches(voxels, rows.places, rows.floats, plan)
    assert passes(plan, moved) < 350


def test_shading_a_batch_moves_few_times_its_size(
    plan: Plan, resident: tuple[ResidentCases, PatchRows]
) -> None:
    """Of two channels: 93; a pass for each tap of the blur moved 468."""
    voxels, rows = resident
    image, _, factors = gather_patches(voxels, rows.places, rows.floats, plan)
    with MovedBytes() as moved:
        shade(image, factors, plan.recipe.augmentation)
    assert passes(plan, moved) < 110


def test_bytes_are_counted_once_for_each_reading_and_writing() -> None:
    numbers = torch.ones(1000)
    with MovedBytes() as moved:
        numbers.view(10, 100).mul_(2)
    assert moved.total == 2 * 4000  # a view moves nothing
