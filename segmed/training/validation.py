"""Dice on held-out cases in the network's own space, with the windows used for users' images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmed.models.fast_kernels import is_slow_alone
from segmed.plan.schema import Plan
from segmed.training.device import Device
from segmed.training.sampling import TrainingCase, patch_in_volume

BATCH_VOXELS = 2**18
"""Aim for the voxels of a batch of windows."""

SMALLEST_PROBABILITY = 1e-7
"""Probabilities are not taken for smaller than this in the cross-entropy."""


@torch.inference_mode()
def validate(
    network: nn.Module, cases: Sequence[TrainingCase], plan: Plan, device: Device
) -> tuple[float, dict[str, float]]:
    """Cross-entropy and Dice over held-out cases.

    Args:
        network: Put into evaluation mode here and left in it.
        cases: Prepared cases.
        plan: Gives labels, patch size and the overlap of windows.
        device: Device of the network.

    Returns:
        Mean cross-entropy, and mean Dice of each label over the cases in which the reference or
        the prediction has it. A missed label counts 0. A label that never occurs is absent.
    """
    network.eval()
    losses: list[float] = []
    scores: dict[str, list[float]] = {item.name: [] for item in plan.labels}
    for case in cases:
        probs = predict_probs(network, case.image, plan, device)
        target = case.label.long()
        losses.append(
            float(F.nll_loss(probs[None].clamp(SMALLEST_PROBABILITY).log(), target[None]))
        )
        dice = class_dice(probs.argmax(dim=0), target, plan.num_classes)
        for index, item in enumerate(plan.labels, start=1):
            if index in dice:
                scores[item.name].append(dice[index])
    means = {name: float(np.mean(values)) for name, values in scores.items() if values}
    return float(np.mean(losses)), means


def class_dice(predicted: Tensor, target: Tensor, num_classes: int) -> dict[int, float]:
    """Dice of each class that occurs in either map.

    Args:
        predicted: Class indices, any shape.
        target: Class indices, the same shape.
        num_classes: Classes, background included.

    Returns:
        Dice by class index. The time does not grow with the number of classes.
    """
    found = torch.bincount(predicted.flatten(), minlength=num_classes)
    wanted = torch.bincount(target.flatten(), minlength=num_classes)
    both = torch.bincount(target[predicted == target], minlength=num_classes)
    totals = (found + wanted).tolist()
    return {k: 2.0 * int(both[k]) / total for k, total in enumerate(totals) if total}


def predict_probs(network: nn.Module, image: Tensor, plan: Plan, device: Device) -> Tensor:
    """Probabilities of one prepared case, `[classes, *spatial]`, float32 on the CPU.

    In windows of the patch's size, as `segmed.inference.Predictor` walks: a network with instance
    norm over a whole volume at once scored 0.02 of Dice less than it does in windows.
    """
    # Imported here: the loop is inference's, which loads more than a training needs to start.
    from segmed.inference.ensemble import slice_by_slice  # noqa: PLC0415 - see above
    from segmed.inference.sliding import sliding_window  # noqa: PLC0415 - see above

    def probabilities(windows: Tensor) -> Tensor:
        return _forward(network, windows, device).softmax(dim=1)

    axes = image.ndim - 1
    is_thin = plan.slice_axis is not None and axes > len(plan.patch_size)
    return sliding_window(
        slice_by_slice(probabilities, plan.slice_axis or 0) if is_thin else probabilities,
        image,
        window=patch_in_volume(plan, axes),
        overlap=plan.inference.overlap,
        blend=plan.inference.blend,
        batch=max(1, BATCH_VOXELS // prod(plan.patch_size)),
        num_classes=plan.num_classes,
    )


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
