"""The class loss of UNet 3+'s classification-guided module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.losses.voxel_terms import VoxelReader


def class_loss(scores: Tensor, target: Tensor, reader: VoxelReader | None = None) -> Tensor:
    """Binary cross-entropy of "is class k anywhere in this image?".

    Args:
        scores: `[B, K]`, before the sigmoid.
        target: `[B, *spatial]`, class indices; with K = 1 the class is that of index 1.
        reader: Meaning of the indices, if structures are regions or some voxels are not annotated.

    Returns:
        A scalar.

    Source:
        Huang et al. 2020, section 2.3.
    """
    if reader is not None:
        seen, known = reader.occurring(target)
        entropy = F.binary_cross_entropy_with_logits(scores.float(), seen, reduction="none")
        return (entropy * known).sum() / known.sum().clamp(min=1)
    first = 1 if scores.shape[1] == 1 else 0
    classes = torch.arange(first, first + scores.shape[1], device=target.device)
    is_there = (target.flatten(1)[:, None] == classes[:, None]).any(2)
    return F.binary_cross_entropy_with_logits(scores.float(), is_there.float())
