"""Biases of the outputs before the first step: the log odds of what patches contain.

A network whose outputs start equal for all classes spends its first steps on learning how rare each
one is. With 148 structures that was most of a short training (brain_many_labels at 6 mm, 300 steps:
Dice 0.10 with biases of zero, 0.45 with these).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from segmed.encoding import LabelEncoding
from segmed.plan import Plan
from segmed.training.sampling import TrainingCase, draw_patches, patch_in_volume

SAMPLED_PATCHES = 32
"""Patches whose voxels are counted."""

STREAM = 2**32
"""Number in the seed of these draws, beyond those of steps."""


def output_biases(cases: Sequence[TrainingCase], plan: Plan, *, seed: int) -> Tensor:
    """Logits that give each class its share of the voxels of training patches.

    Args:
        cases: Prepared cases.
        plan: Gives patch, sampling and encoding.
        seed: Of the patches drawn; processes that train together draw the same ones.

    Returns:
        `[K]` float32: logarithms of the shares of softmax classes, log odds of regions.

    Source:
        Lin et al. 2017, ICCV (focal loss), section 4.1: a prior for the rare class.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, STREAM]))
    counts = torch.zeros(len(plan.encoding.stored_values), dtype=torch.float64)
    for draw in draw_patches(cases, plan, generator, batch_size=SAMPLED_PATCHES):
        case = cases[draw.case]
        _, label = case.patch(draw.centre, patch_in_volume(plan, len(case.shape)))
        counts += torch.bincount(label.flatten().long().cpu(), minlength=len(counts))
    return biases_of(counts[: len(plan.encoding.values)], plan.encoding)


def biases_of(counts: Tensor, encoding: LabelEncoding) -> Tensor:
    """Logits that give each class its share; each class counts as seen in one voxel more.

    Args:
        counts: Voxels of each class index, `[classes]`, without unannotated ones.
        encoding: Meaning of the class indices.

    Returns:
        `[K]` float32.
    """
    shares = (counts + 1.0) / (counts.sum() + len(counts))
    if not encoding.has_regions:
        return shares.log().float()
    within = torch.stack([shares[list(members)].sum() for members in encoding.members])
    return torch.logit(within).float()


def start_outputs(network: nn.Module, biases: Tensor) -> None:
    """Set the biases of a network's logits.

    Args:
        network: The network; one that does not name its `output_layers` stays as it is.
        biases: `[K]`, one a class of the logits.
    """
    layers: tuple[nn.Module, ...] = getattr(network, "output_layers", ())
    with torch.no_grad():
        for layer in layers:
            layer.bias.copy_(biases)  # type: ignore[operator]  # a convolution with a bias
