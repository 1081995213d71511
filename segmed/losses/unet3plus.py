"""The hybrid loss of UNet 3+: focal, MS-SSIM and IoU, for voxels, patches and the map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.losses.case_loss import CaseLoss
from segmed.losses.dice_ce import SMOOTH, foreground_sums
from segmed.losses.ms_ssim import ms_ssim
from segmed.losses.voxel_terms import VoxelTerms

GAMMA = 2.0
"""Focusing exponent of the focal loss."""


def focal_loss(log_true: Tensor, gamma: float = GAMMA) -> Tensor:
    """Cross-entropy in which easy voxels count little.

    Args:
        log_true: Logarithm of the probability of each voxel's true class, any shape.
        gamma: Focusing exponent; 0 gives the cross-entropy.

    Returns:
        A scalar.

    Source:
        Lin et al. 2017, ICCV, eq. 4.
    """
    return (-((1.0 - log_true.exp()) ** gamma) * log_true).mean()


def soft_iou_loss(probs: Tensor, target: Tensor) -> Tensor:
    """One minus the soft IoU, averaged over foreground classes and cases.

    Args:
        probs: `[B, K, *spatial]`.
        target: `[B, *spatial]`, class indices.

    Returns:
        A scalar. A class in neither map counts as perfect.

    Source:
        Mattyus et al. 2017, ICCV, section 3.2.
    """
    flat = probs.flatten(2)
    overlap, size = foreground_sums(flat, target.flatten(1))
    iou = iou_of_sums(overlap, flat.sum(2), size)
    return 1.0 - (iou[:, 1:] if probs.shape[1] > 1 else iou).mean()


def iou_of_sums(overlap: Tensor, found: Tensor, size: Tensor) -> Tensor:
    """Soft IoU of each case and structure, from `[B, F]` sums of probabilities and voxels."""
    return (overlap + SMOOTH) / (found + size - overlap + SMOOTH)


class HybridLoss(CaseLoss):
    """Focal plus MS-SSIM plus IoU loss.

    With several classes the focal loss is that of the softmax, and the other two are of the
    foreground classes. The authors' repository leaves the focal loss out and counts the last scale
    of MS-SSIM four times; this does neither.

    Args:
        num_classes: Classes of the logits.
        reduction: See `CaseLoss`.
        include_background: See `CaseLoss`; similarity and IoU are those of the foreground.

    Source:
        Huang et al. 2020, eq. 5.
    """

    uses_background = False
    takes_sigmoid = True

    def batch_mean(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over a batch; see `CaseLoss`."""
        logits = logits.float()
        if logits.shape[1] == 1:
            sign = target[:, None] * 2 - 1
            log_true = F.logsigmoid(logits * sign)
            probs = shown = logits.sigmoid()
            truth = target[:, None].to(probs.dtype)
        else:
            log_probs = F.log_softmax(logits, dim=1)
            log_true = log_probs.gather(1, target[:, None])
            probs = log_probs.exp()
            shown = probs[:, 1:]
            classes = torch.arange(1, probs.shape[1], device=target.device)
            classes = classes.view(1, -1, *[1] * (target.ndim - 1))
            truth = (target[:, None] == classes).to(probs.dtype)
        similarity = ms_ssim(shown, truth).mean()
        return focal_loss(log_true) + (1.0 - similarity) + soft_iou_loss(probs, target)

    def terms_mean(self, terms: VoxelTerms) -> Tensor:
        """The mean over a batch; see `CaseLoss`. Unannotated voxels look alike."""
        focal = terms.mean((1.0 - (-terms.entropy).exp()) ** GAMMA * terms.entropy)
        similarity = ms_ssim(terms.probs, terms.truth()).mean()
        return focal + (1.0 - similarity) + (1.0 - iou_of_sums(*terms.sums()).mean())
