"""Maps that are computed again in the backward pass instead of being kept (checkpointing).

Source:
    Chen et al. 2016, Training deep nets with sublinear memory cost, arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Context = Callable[[], AbstractContextManager[object]]

_AGAIN: ContextVar[Context | None] = ContextVar("again", default=None)


@contextmanager
def recomputing_in(context: Context) -> Iterator[None]:
    """Compute again within a context of one's own, such as one that casts as autocast does."""
    before = _AGAIN.set(context)
    try:
        yield
    finally:
        _AGAIN.reset(before)


def recomputed(function: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """A map of which the backward pass needs only the maps that it is made of.

    Gradients are the same to the bit. Without gradients the function is called as it is.

    Args:
        function: Computes the map, without random numbers and without changing anything.
        maps: Its arguments.
    """
    if not torch.is_grad_enabled():
        return function(*maps)
    again = _AGAIN.get()
    # Random numbers would be drawn again only by reading the generator, which a graph cannot.
    if again is None:
        kept: Tensor = checkpoint(function, *maps, use_reentrant=False, preserve_rng_state=False)
        return kept
    result: Tensor = checkpoint(
        function,
        *maps,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), again()),
    )
    return result
