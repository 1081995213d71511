"""The loss of U-Net++: half a cross-entropy plus soft Dice, on every head alike."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from segmed.losses.case_loss import CaseLoss
from segmed.losses.dice_ce import dice_of_sums, mean_nll, soft_dice_loss
from segmed.losses.voxel_terms import VoxelTerms

CROSS_ENTROPY_WEIGHT = 0.5


class BCEDiceLoss(CaseLoss):
    """Half the (binary) cross-entropy plus soft Dice.

    With one class it is binary over a sigmoid, as in the paper. With several it is the same over a
    softmax, Dice averaged over the foreground; with two classes the two are equal for equal
    probabilities.

    Args:
        num_classes: Classes of the logits.
        reduction: See `CaseLoss`.
        include_background: See `CaseLoss`; the Dice is that of the foreground.

    Source:
        Zhou et al. 2018, DLMIA, eq. 1; 2019, IEEE TMI 39(6), eq. 2.
    """

    uses_background = False
    takes_sigmoid = True

    def batch_mean(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over a batch; see `CaseLoss`."""
        logits = logits.float()
        if logits.shape[1] == 1:
            entropy = F.binary_cross_entropy_with_logits(logits[:, 0], target.float())
            probs = logits.sigmoid()
        else:
            log_probs = F.log_softmax(logits, dim=1)
            entropy = mean_nll(log_probs, target)
            probs = log_probs.exp()
        dice = soft_dice_loss(probs, target, include_background=False, batch_dice=False)
        return CROSS_ENTROPY_WEIGHT * entropy + dice

    def terms_mean(self, terms: VoxelTerms) -> Tensor:
        """The mean over a batch; see `CaseLoss`."""
        overlap, found, size = terms.sums()
        dice = dice_of_sums(overlap, found + size, batch_dice=False)
        return CROSS_ENTROPY_WEIGHT * terms.mean(terms.entropy) + dice
