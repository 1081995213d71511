"""Dice on held-out cases in the network's own space: quick, once an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmed.plan.schema import Plan
from segmed.training.device import Device
from segmed.training.sampling import TrainingCase, patch_in_volume

WHOLE_VOLUME_RATIO = 2.0
"""A case of at most this many patches' voxels is passed through the network in one piece."""


@torch.inference_mode()
def validate(
    network: nn.Module, cases: Sequence[TrainingCase], plan: Plan, device: Device
) -> tuple[float, dict[str, float]]:
    """Cross-entropy and Dice over held-out cases.

    Args:
        network: Put into evaluation mode here and left in it.
        cases: Prepared cases.
        plan: Gives labels and patch size.
        device: Where the network lies.

    Returns:
        Mean cross-entropy, and mean Dice of each label over the cases in which the reference or
        the prediction has it. A missed label counts 0. A label that never occurs is absent.
    """
    network.eval()
    losses: list[float] = []
    scores: dict[str, list[float]] = {item.name: [] for item in plan.labels}
    for case in cases:
        logits = predict_logits(network, case.image, plan, device)
        target = case.label.long()
        losses.append(float(F.cross_entropy(logits[None], target[None])))
        predicted = logits.argmax(dim=0)
        for index, item in enumerate(plan.labels, start=1):
            found, wanted = predicted == index, target == index
            total = int(found.sum()) + int(wanted.sum())
            if total:
                scores[item.name].append(2.0 * int((found & wanted).sum()) / total)
    means = {name: float(np.mean(values)) for name, values in scores.items() if values}
    return float(np.mean(losses)), means


def predict_logits(network: nn.Module, image: Tensor, plan: Plan, device: Device) -> Tensor:
    """Logits of one prepared case, `[classes, *spatial]`, float32 on the CPU."""
    if plan.slice_axis is not None and image.ndim == 4:
        slices = image.movedim(plan.slice_axis + 1, 0)  # [slices, C, h, w]
        batches = [_forward(network, part, device) for part in torch.split(slices, 8)]
        return torch.cat(batches).movedim(0, plan.slice_axis + 1)
    patch = patch_in_volume(plan, image.ndim - 1)
    if image[0].numel() <= WHOLE_VOLUME_RATIO * np.prod(patch):
        padded, inside = _pad_to(image, patch)
        return _forward(network, padded[None], device)[0][inside]
    # Imported here: a large case is rare in short validations, and the loop is inference's.
    from segmed.inference import sliding_window  # noqa: PLC0415

    return sliding_window(
        lambda window: _forward(network, window, device),
        image,
        window=patch,
        overlap=0.25,
        blend=plan.inference.blend,
        num_classes=plan.num_classes,
    )


def _forward(network: nn.Module, batch: Tensor, device: Device) -> Tensor:
    batch = batch.to(device.torch_device, non_blocking=True)
    with torch.autocast(
        device.torch_device.type,
        dtype=device.autocast_dtype,
        enabled=device.autocast_dtype is not None,
    ):
        logits: Tensor = network(batch)
    return logits.float().cpu()


def _pad_to(image: Tensor, size: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad an image at its ends to at least `size`; and where it then lies."""
    missing = [max(0, want - have) for want, have in zip(size, image.shape[1:], strict=True)]
    widths = [width for extra in reversed(missing) for width in (0, extra)]
    inside = (slice(None), *[slice(0, n) for n in image.shape[1:]])
    if not any(missing):
        return image, inside
    return F.pad(image, widths, value=float(image.min())), inside
