"""A network that refines a label map: its logits start there, and it learns what to change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

START = 3.0
"""Logit of the label map before the first step: with two classes it is believed to 95 %."""


class RefiningNetwork(nn.Module):
    """A network whose logits are added to those of a label map in its input.

    Without training its output is nearly the label map. How far that is believed is learned with
    the weights.

    Args:
        network: From `[B, C + L, *spatial]` to logits `[B, K, *spatial]`, in training also a list
            of them, finest first.
        num_labels: Structures of the label map, L: the last channels of the input, each 1 within
            its structure and 0 elsewhere.
        has_regions: Each structure has a sigmoid of its own, so that K is L; else K is L + 1.
    """

    def __init__(self, network: nn.Module, num_labels: int, *, has_regions: bool = False) -> None:
        super().__init__()
        self.network = network
        self.num_labels = num_labels
        self.has_regions = has_regions
        self.belief = nn.Parameter(torch.tensor([START]))

    @property
    def output_layers(self) -> tuple[nn.Module, ...]:
        """Layers of the inner network that give its logits."""
        return tuple(getattr(self.network, "output_layers", ()))

    def forward(self, image: Tensor) -> Tensor | Sequence[Tensor]:
        """Logits of the refined label map; lists where the network gives lists."""
        maps: Tensor | Sequence[Tensor] = self.network(image)
        start = self._logits_of(image[:, image.shape[1] - self.num_labels :])
        if isinstance(maps, Tensor):
            return maps + start.to(maps.dtype)
        return [one + _resized(start, one).to(one.dtype) for one in maps]

    def _logits_of(self, labels: Tensor) -> Tensor:
        """Logits of the label map, `[B, K, *spatial]`."""
        if self.has_regions:
            return self.belief * (2.0 * labels - 1.0)
        background = 1.0 - labels.sum(dim=1, keepdim=True)
        return self.belief * torch.cat([background, labels], dim=1)


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    """Maps at the size of coarser ones."""
    size = like.shape[2:]
    return maps if maps.shape[2:] == size else F.interpolate(maps, size=size, mode="nearest")
