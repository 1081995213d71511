"""The label map of a first stage as channels of the network's input."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from segmed.encoding import LabelEncoding
from segmed.errors import UsageError
from segmed.metatensor import MetaTensor
from segmed.plan.schema import Plan
from segmed.transforms.chain import prepare_label
from segmed.transforms.grid_transform import Prepared


def with_label_map(prepared: Prepared, label: MetaTensor, plan: Plan) -> Prepared:
    """Append the label map of a first stage to a prepared image, one channel a structure.

    Args:
        prepared: The image as the chain of the plan gives it, `[C, *target]`.
        label: Label values `[1, *spatial]` on the grid of the image as stored.
        plan: A plan that refines a first stage.

    Returns:
        `[C + K, *target]`: 1 within a structure and 0 elsewhere, in the order of `plan.labels`;
        of regions each with all that is in it.

    Raises:
        GeometryError: The label map is on another grid than the image.
        ImageError: It has a value that is not a label of the plan.
    """
    indices = prepare_label(label, prepared, plan)
    image, size = torch.as_tensor(prepared.tensor), len(plan.labels)
    whole = torch.zeros((len(image) + size, *image.shape[1:]))
    whole[: len(image)] = image
    fill_structures(whole[len(image) :], indices, plan.encoding)
    return replace(prepared, tensor=whole)


def fill_structures(channels: Tensor, indices: Tensor, encoding: LabelEncoding) -> None:
    """Fill one channel a structure by 1 within it.

    Args:
        channels: Zeros `[K, *spatial]`, changed in place.
        indices: Class indices `[*spatial]`.
        encoding: Their meaning.
    """
    for channel, members in zip(channels, encoding.members, strict=True):
        for index in members:
            channel.masked_fill_(indices == index, 1.0)


def needs_first_stage(plan: Plan) -> UsageError:
    """The error for a plan that refines a first stage, where none is given."""
    return UsageError(
        f"the plan of {plan.name!r} refines the label map of a first stage, and none is given: "
        "`segmed compare --cascade` trains both stages"
    )
