"""Sums of a softmax over voxels, with a gradient that takes one pass: linear in voxels and classes.

A loss of many classes is bound by memory: with 149 of them each elementwise operation on the
logits of a patch moves hundreds of megabytes. Here a few thousand voxels at a time stay in the
processor's cache through all operations, and the probabilities become the gradient in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

BLOCK_VALUES = 1 << 18
"""Logits worked on at a time: 1 MB of float32."""

MANY_CLASSES = 8
"""From this many classes on, blocks of voxels are faster on a CPU than whole maps: 2.5 times with
21 classes, 5.8 times with 149; with 3 classes neither is."""

_META_STANDS_FOR: ContextVar[str] = ContextVar("meta_stands_for", default="meta")


def takes_blocks(logits: Tensor) -> bool:
    """True for logits, `[B, K, *spatial]`, of which a loss takes its sums by `softmax_sums`."""
    device = _META_STANDS_FOR.get() if logits.is_meta else logits.device.type
    return device == "cpu" and logits.shape[1] >= MANY_CLASSES


@contextmanager
def meta_as(device: str) -> Iterator[None]:
    """Let losses of tensors on `meta` be made as those on another device, for its memory."""
    token = _META_STANDS_FOR.set(device)
    try:
        yield
    finally:
        _META_STANDS_FOR.reset(token)


def softmax_sums(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of each class, within it and in all, and the mean negative log-likelihood.

    Args:
        logits: float32 `[B, K, *spatial]` on a CPU, K at least 2, in any memory format; on `meta`
            the results have shapes only.
        target: `[B, *spatial]`, class indices.

    Returns:
        `[B, K]` sums of the probability of each class over its own voxels, `[B, K]` over all
        voxels, and a scalar, the mean negative log-likelihood of the target classes. They can be
        differentiated once; the gradient has the memory format of the logits.
    """
    overlap, found, nll = _SoftmaxSums.apply(logits, target.flatten(1))  # type: ignore[no-untyped-call]  # PyTorch's own
    return overlap, found, nll


def _blocks(maps: Tensor, axis: int) -> Iterator[tuple[slice, Tensor]]:
    """Parts of the voxels of one case, and their values, with the classes along an axis."""
    across = 1 - axis
    step = max(64, BLOCK_VALUES // maps.shape[axis])
    for start in range(0, maps.shape[across], step):
        length = min(step, maps.shape[across] - start)
        yield slice(start, start + length), maps.narrow(across, start, length)


def _is_channels_last(maps: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return maps.ndim in formats and maps.is_contiguous(memory_format=formats[maps.ndim])


def _by_voxel(maps: Tensor, axis: int) -> Tensor:
    """`[B, K, *spatial]` as `[B, K, N]`, or as `[B, N, K]` for axis 1."""
    return maps.movedim(1, -1).flatten(1, -2) if axis else maps.flatten(2)


class _SoftmaxSums(torch.autograd.Function):
    """See `softmax_sums`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the voxels of each case."""
        axis = int(_is_channels_last(logits))
        given = _by_voxel(logits, axis)
        results = torch.empty_like(given, memory_format=torch.contiguous_format)
        cases, classes = logits.shape[:2]
        of_target = logits.new_empty(index.shape)
        found, overlap = logits.new_zeros(cases, classes), logits.new_empty(cases, classes)
        ctx.save_for_backward(index, of_target)
        ctx.axis, ctx.probs, ctx.spatial = axis, results, logits.shape[2:]
        if logits.is_meta:
            return overlap, found, logits.new_zeros(())
        nll = 0.0
        for case in range(cases):
            for part, block in _blocks(given[case], axis):
                chosen = index[case, part].unsqueeze(axis)
                top = block.amax(axis, keepdim=True)
                result = (block - top).exp_()
                mass = result.sum(axis, keepdim=True)
                result.div_(mass)
                results[case].narrow(1 - axis, part.start, part.stop - part.start).copy_(result)
                found[case] += result.sum(1 - axis)
                of_target[case, part] = result.gather(axis, chosen).squeeze(axis)
                surprise = top + mass.log_() - block.gather(axis, chosen)
                nll += surprise.sum(dtype=torch.float64).item()
            overlap[case] = torch.bincount(index[case], of_target[case], minlength=classes)
        return overlap, found, logits.new_tensor(nll / index.numel())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Turn the probabilities into the gradient of the logits.

        With p the probabilities, t the target, g and h the gradients of `found` and `overlap` and
        q that of the likelihood over the number of voxels, the gradient of a logit k of a voxel is
        p_k (g_k - sum_j p_j g_j - p_t h_t + q) and, for k = t, p_t h_t - q more.
        """
        of_overlap, of_found, of_nll = gradients
        index, of_target = ctx.saved_tensors
        results, ctx.probs = ctx.probs, None
        if results is None:
            raise RuntimeError("the sums of a softmax can be differentiated once")
        axis, share = ctx.axis, of_nll / index.numel()
        for case, weight in enumerate(of_found if not results.is_meta else ()):
            own = of_target[case] * of_overlap[case][index[case]]
            for part, block in _blocks(results[case], axis):
                mean = (block @ weight if axis else weight @ block) + own[part] - share
                block.mul_(weight.unsqueeze(1 - axis) - mean.unsqueeze(axis))
                chosen, more = index[case, part].unsqueeze(axis), own[part] - share
                block.scatter_add_(axis, chosen, more.unsqueeze(axis))
        return results.unflatten(2 - axis, ctx.spatial).movedim(-1 if axis else 1, 1), None
