"""Several networks as one: the mean of their probabilities, given as logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AveragedNetworks(nn.Module):
    """Networks of one form whose probabilities are averaged.

    Logits are given, like from any network, so that it can be packaged, exported and run as one:
    their softmax is the mean of the members' softmax.

    Args:
        networks: At least one; each gives logits `[B, K, *spatial]` when it evaluates.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        """Logarithms of the mean probabilities, `[B, K, *spatial]`."""
        logs = torch.stack([member(image).float().log_softmax(dim=1) for member in self.members])
        return logs.logsumexp(dim=0) - math.log(len(self.members))
