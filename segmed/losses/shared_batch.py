"""Sums over a batch whose patches are shared out over several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

AddUp = Callable[[Tensor], Tensor]
"""Adds a tensor up over the processes, in place, and returns it."""

_sharing: ContextVar[tuple[AddUp, int] | None] = ContextVar("sharing", default=None)


@contextmanager
def shared_batch(add_up: AddUp, size: int) -> Iterator[None]:
    """Take sums over the batches of all processes within the block.

    Every process must compute the same losses in the same order.

    Args:
        add_up: Adds a tensor up over the processes.
        size: Number of processes.
    """
    token = _sharing.set((add_up, size))
    try:
        yield
    finally:
        _sharing.reset(token)


def whole_batch_sum(sums: Tensor) -> Tensor:
    """Add sums over this process's part of a batch up to those over the whole batch.

    A loss that is a mean over patches needs no such sum: the mean of the processes' gradients is
    its gradient. A ratio of sums, as of a Dice that takes the batch as one volume, needs it.

    Args:
        sums: Any shape; with gradient.

    Returns:
        The same shape; `sums` itself outside of `shared_batch`. The gradient is such that its mean
        over the processes is that of the whole batch.
    """
    sharing = _sharing.get()
    if sharing is None:
        return sums
    total: Tensor = _WholeBatchSum.apply(sums, *sharing)  # type: ignore[no-untyped-call]  # PyTorch's own
    return total


class _WholeBatchSum(torch.autograd.Function):
    """Sum over processes, each of which computes the same function of it."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, add_up: AddUp, size: int) -> Tensor:
        """Add up a copy."""
        ctx.size = size
        return add_up(sums.detach().clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """All processes have the same gradient; their gradients are averaged afterwards."""
        return gradients[0] * ctx.size, None, None
