"""Several networks that each segment some of the structures, as one network for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class JoinedPart:
    """Networks of one part.

    Attributes:
        members: How many networks have their logits averaged.
        first_channel: First channel of the input that is the part's.
        num_channels: Channels of the input that are the part's.
    """

    members: int
    first_channel: int
    num_channels: int


class JoinedNetworks(nn.Module):
    """Networks of several parts whose structures are joined.

    A logit of the joined network is the excess of a structure's logit over the background's of its
    part; that of the background is 0. So a voxel that one part alone gives to a structure gets that
    structure, one that no part does is background, and of several structures the one with the
    largest excess is taken. The excess is linear in the logits: means over windows, mirror images
    and folds, and interpolation of the joined logits, are those of the parts.

    Args:
        networks: Networks of all parts, one part after the other.
        parts: The parts.
    """

    def __init__(self, networks: Sequence[nn.Module], parts: Sequence[JoinedPart]) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)
        self.parts = tuple(parts)

    def forward(self, image: Tensor) -> Tensor:
        """Joined logits.

        Args:
            image: `[B, C, *spatial]`, the channels of all parts.

        Returns:
            `[B, 1 + structures of all parts, *spatial]`.
        """
        return self.combined(self.maps_of_members(image))

    def maps_of_members(self, image: Tensor) -> Iterator[Tensor]:
        """Logits of each network in order, over the background and structures of its part."""
        networks = iter(self.members)
        for part in self.parts:
            channels = image.narrow(1, part.first_channel, part.num_channels)
            for _ in range(part.members):
                yield next(networks)(channels).float()

    def combined(self, maps: Iterable[Tensor]) -> Tensor:
        """Joined logits as `forward` gives them, of the logits of each network in order."""
        remaining = iter(maps)
        joined: list[Tensor] = []
        for part in self.parts:
            total = next(remaining)
            for _ in range(part.members - 1):
                total = total + next(remaining)
            logits = total / part.members
            if not joined:
                joined.append(torch.zeros_like(logits[:, :1]))
            joined.append(logits[:, 1:] - logits[:, :1])
        return torch.cat(joined, dim=1)
