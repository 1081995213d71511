"""Several networks, several views: the mean of their probabilities or logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations

import torch
from torch import Tensor

from segmed.errors import UsageError
from segmed.inference.sliding import NetworkFn
from segmed.plan import Plan
from segmed.quality.agreement import MemberAgreement

CONTRACT = ("spatial_dims", "channels", "labels", "preprocessing", "patch_size", "slice_axis")
"""Fields of a plan that networks must share to be averaged window by window."""


def same_contract(one: Plan, other: Plan) -> bool:
    """Return whether networks of two plans take the same windows of the same prepared image."""
    return all(getattr(one, name) == getattr(other, name) for name in CONTRACT)


def require_one_average(plans: Sequence[Plan]) -> None:
    """Check that networks that are averaged window by window average the same.

    Args:
        plans: Plans of one contract, one a member.

    Raises:
        UsageError: Some average logits and some probabilities.
    """
    if len({plan.inference.average for plan in plans}) > 1:
        raise UsageError(
            "some packages average logits and some probabilities: members of an ensemble average "
            "the same"
        )


def averaged(members: Sequence[NetworkFn], agreement: MemberAgreement | None = None) -> NetworkFn:
    """The mean of several networks' maps.

    Args:
        members: The networks.
        agreement: Counts where they agree, if given.
    """
    if len(members) == 1:
        return members[0]

    def mean(windows: Tensor) -> Tensor:
        total = members[0](windows).clone()
        shown = [] if agreement is None else [agreement.labels_of(total)]
        for member in members[1:]:
            maps = member(windows)
            total += maps
            if agreement is not None:
                shown.append(agreement.labels_of(maps))
        if agreement is not None:
            agreement.count(shown)
        return total.div_(len(members))

    return mean


def mirrored(network: NetworkFn, axes: Sequence[int], *, num_maps: int | None = None) -> NetworkFn:
    """The mean over all mirror images along `axes`, each mirrored back.

    Args:
        network: From windows to maps.
        axes: Spatial axes of the window, 0 the first.
        num_maps: Channels that are averaged, the first ones; others, such as labels, stay those of
            the window as it is. All if not given.
    """
    if not axes:
        return network
    dims = [axis + 2 for axis in axes]
    views = list(chain.from_iterable(combinations(dims, size) for size in range(len(dims) + 1)))

    def mean(windows: Tensor) -> Tensor:
        total = network(windows).clone()
        averaged = total[:, :num_maps]
        for flips in views[1:]:
            averaged += torch.flip(network(torch.flip(windows, flips))[:, :num_maps], flips)
        averaged.div_(len(views))
        return total

    return mean


def slice_by_slice(network: NetworkFn, axis: int) -> NetworkFn:
    """A 2D network on windows that are one slice thick along a spatial axis."""
    dim = axis + 2

    def apply(windows: Tensor) -> Tensor:
        return network(windows.squeeze(dim)).unsqueeze(dim)

    return apply
