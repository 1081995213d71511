"""The classification-guided module of UNet 3+: presence of each structure.

Huang et al. 2020, section 2.3. The deepest map goes through dropout, a 1x1 convolution and a global
maximum; the score gates the segmentation. Differences from the authors' repository: scores are
trained (their argmax let no gradient through), an absent class gets probability 0 (gating logits
gave 0.5), and a whole case is gated at once, since a window need not contain the organ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segmed.models.blocks import pointwise

PRESENT = 0.5
"""A class whose probability of being there is lower is taken for absent."""


SMALLEST = 1e-37
"""Probability whose logarithm replaces that of 0."""


class ScoredLogits(NamedTuple):
    """Training output of a network with a CGM.

    Attributes:
        logits: `[B, K, *spatial]` each, finest first.
        scores: `[B, K]`, before the sigmoid: is class k anywhere in the image?
    """

    logits: list[Tensor]
    scores: Tensor


class ClassHead(nn.Module):
    """One score a class from the deepest map.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Features of the deepest map.
        num_classes: Classes, background included.
    """

    def __init__(self, spatial_dims: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.conv = pointwise(spatial_dims, in_channels, num_classes)

    def forward(self, deepest: Tensor) -> Tensor:
        """Scores before the sigmoid.

        Args:
            deepest: `[B, C, *spatial]`.

        Returns:
            `[B, num_classes]`.
        """
        scores: Tensor = self.conv(self.drop(deepest))
        return scores.flatten(2).amax(2)


def gate_probabilities(probs: Tensor, scores: Tensor, *, is_multilabel: bool) -> Tensor:
    """Take the absent classes out of the probabilities of whole cases.

    Args:
        probs: `[B, K, *spatial]`. The first is the background, unless they are multilabel.
        scores: `[B, K]` before the sigmoid. For a case seen in windows: the largest over them.
        is_multilabel: Each class has a probability of its own, as regions have; there is no
            background.

    Returns:
        `[B, K, *spatial]`; an absent class has 0 everywhere, what it had is the background's.
    """
    gates = (torch.sigmoid(scores) >= PRESENT).to(probs.dtype)
    if not is_multilabel:
        gates = torch.cat([torch.ones_like(gates[:, :1]), gates[:, 1:]], dim=1)
    gated = probs * gates.view(*gates.shape, *[1] * (probs.ndim - 2))
    if not is_multilabel:
        rest = probs.sum(1, keepdim=True) - gated.sum(1, keepdim=True)
        gated = torch.cat([gated[:, :1] + rest, gated[:, 1:]], dim=1)
    return gated


def gate_logits(logits: Tensor, scores: Tensor, *, is_multilabel: bool) -> Tensor:
    """Logits of gated probabilities.

    Args:
        logits: `[B, K, *spatial]` of whole cases.
        scores: `[B, K]` before the sigmoid.
        is_multilabel: Probabilities are sigmoids of the logits; else they are their softmax.

    Returns:
        `[B, K, *spatial]`, finite; their softmax (or sigmoid) is 0 for an absent class, to the
        last bit of float32.
    """
    if is_multilabel:
        is_there = torch.sigmoid(scores) >= PRESENT
        is_there = is_there.view(*is_there.shape, *[1] * (logits.ndim - 2))
        return torch.where(is_there, logits.float(), math.log(SMALLEST))
    probs = gate_probabilities(logits.float().softmax(1), scores, is_multilabel=False)
    return probs.clamp(min=SMALLEST).log()
