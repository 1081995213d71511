"""Dice on held-out cases in the network's own space, with the windows used for users' images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from segmed.encoding import LabelEncoding
from segmed.metrics import DiceScore
from segmed.models.fast_kernels import is_slow_alone
from segmed.plan.schema import Plan
from segmed.training.device import Device
from segmed.training.distributed import ProcessGroup
from segmed.training.sampling import TrainingCase

BATCH_VOXELS = 2**18
"""Aim for the voxels of a batch of windows."""

ABSENT = -1.0
"""Dice of a label that neither the reference nor the prediction has."""

SMALLEST_PROBABILITY = 1e-7
"""Probabilities are not taken for smaller than this in the cross-entropy."""


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Attributes:
        loss: Mean cross-entropy over the cases.
        dice: Mean Dice of each label over the cases in which the reference or the prediction has
            it. A missed label counts 0. A label that never occurs is absent.
        sample_dice: Mean of the labels' Dice over the sample; None where no label occurs in it.
    """

    loss: float
    dice: dict[str, float]
    sample_dice: float | None


@torch.inference_mode()
def validate(
    network: nn.Module,
    cases: Sequence[TrainingCase],
    plan: Plan,
    device: Device,
    *,
    sample: Sequence[int] | None = None,
    process_group: ProcessGroup = ProcessGroup(),
    stops: Callable[[], bool] = lambda: False,
) -> Validation:
    """Cross-entropy and Dice over held-out cases.

    Args:
        network: Put into evaluation mode here and left in it.
        cases: Prepared cases, the same in all processes; each scores its part of them.
        plan: Gives labels, patch size and the overlap of windows.
        device: Device of the network.
        sample: Places of the cases by which epochs are compared; all if not given.
        process_group: The processes that share out the cases.
        stops: Asked before each case; true where this process is to stop.

    Returns:
        The result; equal in all processes, and to the bit what one process finds.

    Raises:
        KeyboardInterrupt: One of the processes was to stop; raised in all of them.
    """
    network.eval()
    dice = DiceScore(plan.encoding.num_channels, encoding=plan.encoding)
    table = torch.zeros((len(cases) + 1, 1 + len(plan.labels)), dtype=torch.float64)
    for row in process_group.part_of(range(len(cases))):
        if stops():
            table[-1] = 1.0
            break
        table[row] = _scores(network, cases[row], plan, device, dice)
    *rows, stop = process_group.total(table).tolist()
    if stop[0]:
        raise KeyboardInterrupt("stopped while validating")
    losses = [row[0] for row in rows]
    known = [loss for loss in losses if np.isfinite(loss)]  # a case may have no annotated voxel
    compared = list(
        _label_means(rows if sample is None else [rows[n] for n in sample], plan).values()
    )
    return Validation(
        float(np.mean(known or losses)),
        _label_means(rows, plan),
        float(np.mean(compared)) if compared else None,
    )


def _label_means(rows: Sequence[Sequence[float]], plan: Plan) -> dict[str, float]:
    """Mean Dice of each label that occurs in any of the cases."""
    columns = zip(plan.labels, list(zip(*rows, strict=True))[1:], strict=True)
    measured = {item.name: [value for value in column if value >= 0] for item, column in columns}
    return {name: float(np.mean(values)) for name, values in measured.items() if values}


def _scores(
    network: nn.Module, case: TrainingCase, plan: Plan, device: Device, dice: DiceScore
) -> Tensor:
    """Cross-entropy and the Dice of each label of one case, float64; -1 for an absent label.

    Everything but these few numbers stays where the network gives its probabilities.
    """
    probs = predict_probs(network, case.image, plan, device)
    target = case.label.to(probs.device).long()
    loss = mean_entropy(probs, target, plan.encoding)
    predicted = plan.encoding.class_indices(probs)
    values = dice(predicted[None, None], target[None, None])[0].nan_to_num(nan=ABSENT)
    return torch.cat([torch.tensor([loss], dtype=torch.float64), values])


def mean_entropy(probs: Tensor, target: Tensor, encoding: LabelEncoding) -> float:
    """Mean cross-entropy of the annotated voxels; of regions the mean over them. NaN without any.

    Args:
        probs: `[K, *spatial]`.
        target: Class indices, `[*spatial]` int64.
        encoding: Meaning of both.
    """
    probs, target = probs.flatten(1), target.flatten()
    if encoding.ignore_index is not None:
        is_known = target != encoding.ignore_index
        probs, target = probs[:, is_known], target[is_known]
    if encoding.has_regions:
        inside = torch.stack([_belongs(target, members) for members in encoding.members])
        likely = torch.where(inside, probs, 1.0 - probs).clamp_(SMALLEST_PROBABILITY)
    else:
        likely = probs.gather(0, target[None]).clamp_(SMALLEST_PROBABILITY)
    return float(-likely.log_().mean(dtype=torch.float64))


def _belongs(target: Tensor, members: Sequence[int]) -> Tensor:
    """Voxels whose class index is one of some."""
    inside = target == members[0]
    for index in members[1:]:
        inside |= target == index
    return inside


def predict_probs(network: nn.Module, image: Tensor, plan: Plan, device: Device) -> Tensor:
    """Probabilities of one prepared case, `[classes, *spatial]`, float32, on the device.

    In windows of the patch's size, as `segmed.inference.Predictor` walks: a network with instance
    norm over a whole volume at once scored 0.02 of Dice less than it does in windows.
    """
    # Imported here: the loop is inference's, which loads more than a training needs to start.
    from segmed.inference.ensemble import slice_by_slice  # noqa: PLC0415 - see above
    from segmed.inference.plan_recipe import is_thin, recipe_of  # noqa: PLC0415 - see above
    from segmed.inference.sliding import sliding_slabs  # noqa: PLC0415 - see above

    def probabilities(windows: Tensor) -> Tensor:
        return plan.encoding.probabilities(_forward(network, windows, device))

    batch, shape = max(1, BATCH_VOXELS // prod(plan.patch_size)), tuple(image.shape[1:])
    recipe = replace(recipe_of(plan, shape, batch=batch, buffer_dim=0), skip_empty=False)
    is_sliced = is_thin(plan, len(shape))
    maps = slice_by_slice(probabilities, recipe.buffer_dim) if is_sliced else probabilities
    volume = image.to(device.torch_device)
    result = torch.zeros((plan.encoding.num_channels, *shape), device=volume.device)
    for slab in sliding_slabs(maps, volume, recipe):
        rows = slab.values.shape[1 + recipe.buffer_dim]
        result.narrow(1 + recipe.buffer_dim, slab.start, rows).copy_(slab.values)
    return result


def _forward(network: nn.Module, batch: Tensor, device: Device) -> Tensor:
    batch = batch.to(device.torch_device, non_blocking=True)
    alone = is_slow_alone(batch)
    batch = batch.expand(2, *batch.shape[1:]) if alone else batch
    with torch.autocast(
        device.torch_device.type,
        dtype=device.autocast_dtype,
        enabled=device.autocast_dtype is not None,
    ):
        logits: Tensor = network(batch)
    return (logits[:1] if alone else logits).float()
