"""A loss over several heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from segmed.errors import UsageError
from segmed.losses.case_loss import CaseLoss, class_indices
from segmed.losses.cgm import class_loss
from segmed.models.gating import ScoredLogits


class DeepSupervisionLoss(_Loss):
    """The weighted sum of one loss over the heads of a network, finest first.

    Args:
        loss: Applied to every head.
        weights: One for each head, finest first; normalised to sum to 1. None halves them from head
            to head.
        ratio: What "halves" means: each head's weight over the one before.
    """

    def __init__(
        self, loss: CaseLoss, weights: Sequence[float] | None = None, *, ratio: float = 0.5
    ) -> None:
        super().__init__(reduction=loss.reduction)
        if weights is not None and (not weights or min(weights) < 0 or sum(weights) <= 0):
            raise UsageError(f"head weights must be non-negative, not all zero: got {weights}")
        self.loss = loss
        self.ratio = ratio
        self.weights = None if weights is None else tuple(weights)

    def forward(self, logits: Tensor | Sequence[Tensor] | ScoredLogits, target: Tensor) -> Tensor:
        """The loss.

        Args:
            logits: `[B, K, *spatial]`, or a list of them, finest first, coarser ones on grids that
                divide it; with class scores, whose loss is added.
            target: `[B, *spatial]` or `[B, 1, *spatial]`, class indices.

        Returns:
            A scalar, or `[B]` with reduction `none`.

        Raises:
            UsageError: There are more or fewer heads than weights, class scores without `mean`, or
                a head's grid does not divide that of the target.
        """
        if isinstance(logits, ScoredLogits):
            return self._with_scores(logits, target)
        if isinstance(logits, Tensor):
            return self._one(logits, target)
        weights = head_weights(len(logits), self.weights, ratio=self.ratio)
        parts = [
            weight * self._one(head, bring_down(target, head.shape[2:]))
            for weight, head in zip(weights, logits, strict=True)
            if weight > 0
        ]
        return torch.stack(parts).sum(0)

    def _with_scores(self, scored: ScoredLogits, target: Tensor) -> Tensor:
        if self.reduction != "mean":
            raise UsageError(
                f"reduction={self.reduction!r} has no meaning for a network with class scores: "
                "their loss is a mean over the batch; give reduction='mean'"
            )
        first = scored.logits if isinstance(scored.logits, Tensor) else scored.logits[0]
        indices = class_indices(first, target)
        return self.forward(scored.logits, indices) + class_loss(
            scored.scores, indices, self.loss.reader
        )

    def _one(self, logits: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.loss(logits, target)
        return value


def bring_down(target: Tensor, size: Sequence[int]) -> Tensor:
    """Labels on the grid of a coarser head: of each block of voxels the middle one.

    Args:
        target: `[..., *spatial]`, class indices.
        size: Size of the head along each axis; divides `spatial`.

    Returns:
        `[..., *size]`, a view: without new values, as nearest neighbour gives them.

    Raises:
        UsageError: The size does not divide that of the target.
    """
    spatial = target.shape[target.ndim - len(size) :]
    if any(whole % n for whole, n in zip(spatial, size, strict=True)):
        raise UsageError(
            f"a head's logits of {tuple(size)} do not divide labels of {tuple(spatial)}: logits of "
            "coarser heads are on grids whose step is a whole number of voxels"
        )
    steps = [whole // n for whole, n in zip(spatial, size, strict=True)]
    middles = tuple(slice(step // 2, None, step) for step in steps)
    leading = (slice(None),) * (target.ndim - len(size))
    return target[leading + middles]


def head_weights(
    num_heads: int, weights: Sequence[float] | None = None, *, ratio: float = 0.5
) -> tuple[float, ...]:
    """Weights of the heads, finest first, summing to 1.

    Args:
        num_heads: Heads of the network.
        weights: Wanted proportions; None multiplies them by `ratio` from head to head.
        ratio: 1 weights all heads alike.

    Returns:
        One weight a head.

    Raises:
        UsageError: There are more or fewer heads than weights.

    Source:
        Isensee et al. 2021, Nature Methods 18, supplementary note 2 (halving).
    """
    raw = [ratio**index for index in range(num_heads)] if weights is None else list(weights)
    if len(raw) != num_heads:
        raise UsageError(f"{num_heads} heads need as many weights, got {len(raw)}: {raw}")
    return tuple(weight / sum(raw) for weight in raw)
