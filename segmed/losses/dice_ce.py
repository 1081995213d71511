"""Soft Dice plus cross-entropy, from one softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMOOTH = 1e-5
"""Added to numerator and denominator: a class absent from both scores 1."""


def soft_dice_loss(
    probs: Tensor, target: Tensor, *, include_background: bool, batch_dice: bool
) -> Tensor:
    """One minus the soft Dice, averaged over classes.

    Args:
        probs: `[B, K, *spatial]`, summing to 1 over K.
        target: `[B, *spatial]`, class indices.
        include_background: Average over class 0 too.
        batch_dice: Take the batch as one volume; otherwise average over cases.

    Returns:
        A scalar. A class in neither map counts as perfect.

    Source:
        Milletari et al. 2016, 3DV, eq. 3, with plain instead of squared sums in the denominator.
    """
    flat = probs.flatten(2)  # [B, K, N]
    index = target.flatten(1)  # [B, N]
    truth = F.one_hot(index, probs.shape[1]).to(flat.dtype)  # [B, N, K]
    overlap = torch.einsum("bkn,bnk->bk", flat, truth)
    total = flat.sum(2) + truth.sum(1)
    if not include_background:
        overlap, total = overlap[:, 1:], total[:, 1:]
    if batch_dice:
        overlap, total = overlap.sum(0), total.sum(0)
    return 1.0 - ((2.0 * overlap + SMOOTH) / (total + SMOOTH)).mean()


class DiceCELoss(nn.Module):
    """Soft Dice plus cross-entropy, equally weighted.

    Args:
        num_classes: Classes, background included.
        include_background: Let the background take part in the Dice.
        batch_dice: Take the batch as one volume, which keeps small structures from noise.
    """

    def __init__(
        self, num_classes: int, *, include_background: bool = False, batch_dice: bool = True
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.include_background = include_background
        self.batch_dice = batch_dice

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss.

        Args:
            logits: `[B, K, *spatial]`.
            target: `[B, *spatial]`, class indices.

        Returns:
            A scalar.
        """
        log_probs = F.log_softmax(logits.float(), dim=1)
        dice = soft_dice_loss(
            log_probs.exp(),
            target,
            include_background=self.include_background,
            batch_dice=self.batch_dice,
        )
        return dice + F.nll_loss(log_probs, target)
