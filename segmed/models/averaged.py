"""Several networks as one: the mean of their probabilities, given as logits, or of their logits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AveragedNetworks(nn.Module):
    """Networks of one form whose probabilities are averaged.

    Logits are given, like from any network, so that it can be packaged, exported and run as one:
    their softmax (of regions, their sigmoid) is the mean of the members'.

    Args:
        networks: At least one; each gives logits `[B, K, *spatial]` when it evaluates.
        has_regions: Each channel has a sigmoid of its own.
        of_logits: Give the mean of the logits instead, as nnU-Net averages its folds.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        has_regions: bool = False,
        of_logits: bool = False,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)
        self.has_regions = has_regions
        self.of_logits = of_logits

    def forward(self, image: Tensor) -> Tensor:
        """Mean logits, or logarithms or log-odds of the mean probabilities, `[B, K, *spatial]`."""
        return self.combined(member(image).float() for member in self.members)

    def combined(self, maps: Iterable[Tensor]) -> Tensor:
        """Mean as `forward` gives it, of the logits of each member in order."""
        if self.of_logits:
            remaining = iter(maps)
            total = next(remaining)
            for logits in remaining:
                total = total + logits
            return total / len(self.members)
        if self.has_regions:
            logits = torch.stack(list(maps))
            inside = F.logsigmoid(logits).logsumexp(dim=0)
            return inside - F.logsigmoid(-logits).logsumexp(dim=0)
        logs = torch.stack([logits.log_softmax(dim=1) for logits in maps])
        return logs.logsumexp(dim=0) - math.log(len(self.members))
