"""Soft Dice plus cross-entropy, from one softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.encoding import LabelEncoding
from segmed.errors import UsageError
from segmed.losses.case_loss import CaseLoss
from segmed.losses.shared_batch import whole_batch_sum
from segmed.losses.softmax_sums import softmax_sums, takes_blocks
from segmed.losses.voxel_terms import VoxelTerms

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
        batch_dice: Take the batch (of all processes that share one) as one volume; otherwise
            average over cases.

    Returns:
        A scalar. A class in neither map counts as perfect. A single class (K = 1) is the foreground
        of target 1.

    Source:
        Milletari et al. 2016, 3DV, eq. 3, with plain instead of squared sums in the denominator.
    """
    flat = probs.flatten(2)  # [B, K, N]
    index = target.flatten(1)  # [B, N]
    overlap, size = foreground_sums(flat, index)
    total = flat.sum(2) + size
    if not include_background and flat.shape[1] > 1:
        overlap, total = overlap[:, 1:], total[:, 1:]
    return dice_of_sums(overlap, total, batch_dice=batch_dice)


def dice_of_sums(overlap: Tensor, total: Tensor, *, batch_dice: bool) -> Tensor:
    """One minus the soft Dice, averaged over structures.

    Args:
        overlap: `[B, F]`, probability within each structure.
        total: `[B, F]`, probability and voxels of each structure together.
        batch_dice: Take the batch as one volume; otherwise average over cases.

    Returns:
        A scalar.
    """
    if batch_dice:
        overlap, total = whole_batch_sum(torch.stack([overlap.sum(0), total.sum(0)]))
    return 1.0 - ((2.0 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def foreground_sums(flat: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the probabilities of each class, and the size of each class.

    Args:
        flat: `[B, K, N]`, probabilities.
        index: `[B, N]`, class indices; with K = 1, where it is 1.

    Returns:
        `[B, K]` sums of probability within the class, and `[B, K]` voxels of the class.
    """
    first = 1 if flat.shape[1] == 1 else 0
    overlaps, sizes = [], []
    # A class at a time: scattering is slow and, on a GPU, unordered. `unbind` gives all classes one
    # backward step; `flat[:, k]` would give each its own gradient as large as all of them together.
    for k, probs in enumerate(flat.unbind(1), start=first):
        is_class = (index == k).to(flat.dtype)
        overlaps.append((probs * is_class).sum(1))
        sizes.append(is_class.sum(1))
    return torch.stack(overlaps, 1), torch.stack(sizes, 1)


def class_sizes(target: Tensor, num_classes: int) -> Tensor:
    """Voxels of each class, `[B, K]`, of class indices, `[B, *spatial]`; no values on `meta`."""
    if target.is_meta:
        return target.new_empty(len(target), num_classes)
    counts = [torch.bincount(case.flatten(), minlength=num_classes) for case in target]
    return torch.stack(counts)


def mean_nll(log_probs: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-likelihood of the target classes.

    Args:
        log_probs: `[B, K, *spatial]`.
        target: `[B, *spatial]`, class indices.

    Returns:
        A scalar. Gathered where only deterministic algorithms are allowed on a GPU, where PyTorch's
        own loss over volumes has none.
    """
    if log_probs.is_cuda and torch.are_deterministic_algorithms_enabled():
        return gathered_nll(log_probs, target)
    return F.nll_loss(log_probs, target)


def gathered_nll(log_probs: Tensor, target: Tensor) -> Tensor:
    """The same as `mean_nll`, by a gather over the classes."""
    return -log_probs.gather(1, target.unsqueeze(1)).mean()


class DiceCELoss(CaseLoss):
    """Soft Dice plus cross-entropy, equally weighted.

    Args:
        num_classes: Classes, background included.
        include_background: Let the background take part in the Dice.
        batch_dice: Take the batch as one volume, which keeps small structures from noise.
        reduction: See `CaseLoss`; a Dice of the whole batch has no value of one case.
        encoding: See `CaseLoss`; the cross-entropy of regions is the mean of the binary ones.

    Raises:
        UsageError: Another reduction than `mean` is asked for with `batch_dice`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        include_background: bool = False,
        batch_dice: bool = True,
        reduction: str = "mean",
        encoding: LabelEncoding | None = None,
    ) -> None:
        super().__init__(
            num_classes,
            reduction=reduction,
            include_background=include_background,
            encoding=encoding,
        )
        if batch_dice and reduction != "mean":
            raise UsageError(
                f"reduction={reduction!r} has no meaning where the Dice is that of the whole "
                "batch: give batch_dice=False, or reduction='mean'"
            )
        self.include_background = include_background
        self.batch_dice = batch_dice

    def batch_mean(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over a batch; see `CaseLoss`."""
        logits = logits.float()
        if takes_blocks(logits):
            return self._many_classes(logits, target)
        log_probs = F.log_softmax(logits, dim=1)
        dice = soft_dice_loss(
            log_probs.exp(),
            target,
            include_background=self.include_background,
            batch_dice=self.batch_dice,
        )
        return dice + mean_nll(log_probs, target)

    def _many_classes(self, logits: Tensor, target: Tensor) -> Tensor:
        overlap, found, nll = softmax_sums(logits, target)
        first = 0 if self.include_background else 1
        total = found + class_sizes(target, self.num_classes).to(found.dtype)
        dice = dice_of_sums(overlap[:, first:], total[:, first:], batch_dice=self.batch_dice)
        return dice + nll

    def terms_mean(self, terms: VoxelTerms) -> Tensor:
        """The mean over a batch; see `CaseLoss`."""
        overlap, found, size = terms.sums()
        dice = dice_of_sums(overlap, found + size, batch_dice=self.batch_dice)
        return dice + terms.mean(terms.entropy)
