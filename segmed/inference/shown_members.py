"""Labels of the members of a package beside their mean, so that their agreement can be counted.

The networks of an ensemble are averaged within one network, which every engine runs as a whole.
Where predicted quality needs the agreement of the members, one more channel for each member has
the class index that it alone would give. The maps of classes stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import torch
from torch import Tensor, nn

from segmed.encoding import LabelEncoding
from segmed.errors import UsageError
from segmed.inference.engine import Activation
from segmed.models.averaged import AveragedNetworks
from segmed.models.joined import JoinedNetworks
from segmed.package import ModelPackage

Pairs = tuple[tuple[int, int], ...]
"""Pairs of members whose labels are compared."""


class ShownMembers(nn.Module):
    """An ensemble that gives a channel with the class indices of each member behind its logits.

    Args:
        network: The ensemble.
        encoding: Meaning of the channels of the whole.
    """

    def __init__(self, network: AveragedNetworks | JoinedNetworks, encoding: LabelEncoding) -> None:
        super().__init__()
        self.network = network
        self._encoding = encoding

    def forward(self, image: Tensor) -> Tensor:
        """Logits `[B, K, *spatial]`, then one channel a member."""
        if isinstance(self.network, JoinedNetworks):
            maps = list(self.network.maps_of_members(image))
            labels = list(self._of_parts(self.network, maps))
        else:
            maps = [member(image).float() for member in self.network.members]
            labels = [self._of_whole(logits) for logits in maps]
        return torch.cat([self.network.combined(maps), torch.stack(labels, dim=1)], dim=1)

    def _of_whole(self, logits: Tensor) -> Tensor:
        probs = self._encoding.probabilities(logits) if self._encoding.has_regions else logits
        return self._encoding.class_indices(probs.transpose(0, 1)).to(logits.dtype)

    def _of_parts(self, network: JoinedNetworks, maps: list[Tensor]) -> Iterator[Tensor]:
        """Class indices of the whole; those of a part follow the structures of the parts before."""
        remaining, before = iter(maps), 0
        for part in network.parts:
            for _ in range(part.members):
                logits = next(remaining)
                own = logits.max(dim=1).indices
                yield torch.where(own > 0, own + before, own).to(logits.dtype)
            before += logits.shape[1] - 1


def shown_members(package: ModelPackage) -> Callable[[], nn.Module]:
    """Builder of a package's network that gives the labels of its members, too.

    Raises:
        UsageError: The package has one network.
    """
    if package.members < 2:
        raise UsageError("a package with one network has no members to compare")

    def build() -> nn.Module:
        network = package.build()
        assert isinstance(network, AveragedNetworks | JoinedNetworks)  # with several members
        return ShownMembers(network, package.plan.encoding).eval()

    return build


def beside_members(activation: Activation, num_channels: int) -> Activation:
    """An activation of the first channels that leaves those of the members as they are."""

    def apply(maps: Tensor) -> Tensor:
        return torch.cat([activation(maps[:, :num_channels]), maps[:, num_channels:]], dim=1)

    return apply


def member_pairs(package: ModelPackage) -> Pairs:
    """Pairs of members that segment the same structures and can be compared.

    - networks of one architecture, such as the folds of a cross-validation: all pairs;
    - several architectures with as many networks each: those of the same fold, which is what is
      measured on the cases that the fold held out;
    - part models: all pairs within each part; a part with one network has none;
    - networks of several plans: none.

    Args:
        package: The package.
    """
    if package.plans:
        return ()
    sizes = [part.members for part in package.parts] or [package.members]
    firsts = [sum(sizes[:number]) for number in range(len(sizes))]
    if any(part.structures is not None for part in package.parts) or len(sizes) == 1:
        groups = [range(first, first + size) for first, size in zip(firsts, sizes, strict=True)]
        return tuple(pair for group in groups for pair in combinations(group, 2))
    if len(set(sizes)) > 1:
        return tuple(combinations(range(package.members), 2))
    folds = ([first + fold for first in firsts] for fold in range(sizes[0]))
    return tuple(pair for fold in folds for pair in combinations(fold, 2))
