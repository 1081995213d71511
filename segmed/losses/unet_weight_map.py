"""The loss of U-Net: cross-entropy weighted by class frequency and by nearness of two cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from segmed.losses.case_loss import CaseLoss
from segmed.losses.voxel_terms import VoxelTerms

BORDER_WEIGHT = 10.0
"""w0 of the paper."""

BORDER_SIGMA = 5.0
"""Sigma of the paper, in pixels."""


def border_weights(
    cells: npt.NDArray[np.integer], *, w0: float = BORDER_WEIGHT, sigma: float = BORDER_SIGMA
) -> npt.NDArray[np.float32]:
    """The second term of the weight map: large where two cells are near each other.

    Args:
        cells: `[*spatial]`; 0 is background, every cell has a number of its own.
        w0: Largest weight.
        sigma: Its fall, in voxels.

    Returns:
        `[*spatial]`; zeros where there are fewer than two cells.

    Source:
        Ronneberger et al. 2015, eq. 2: w0 exp(-(d1 + d2)² / 2 sigma²), d1 and d2 the distances to
        the nearest and second nearest cell.
    """
    nearest = np.full(cells.shape, np.inf)
    second = np.full(cells.shape, np.inf)
    for number in np.unique(cells[cells > 0]):
        distance = ndimage.distance_transform_edt(cells != number)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    weights: npt.NDArray[np.float32] = (
        w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    ).astype(np.float32)
    return weights


def class_weights(target: Tensor, num_classes: int) -> Tensor:
    """The first term: weights that give every class that is there the same total.

    Args:
        target: Class indices, any shape.
        num_classes: Classes.

    Returns:
        `[num_classes]`, whose mean over the voxels is 1; 0 for an absent class.

    Source:
        Ronneberger et al. 2015, eq. 2, w_c.
    """
    counts = torch.bincount(target.flatten(), minlength=num_classes).float()
    present = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (present * counts.clamp(min=1)), 0.0)


def weight_map(target: Tensor, num_classes: int) -> Tensor:
    """Both terms for a batch; cells are the connected components of the foreground.

    Args:
        target: `[B, *spatial]`, class indices; larger ones are not annotated and weigh nothing.
        num_classes: Classes.

    Returns:
        `[B, *spatial]`, float32.

    Source:
        Ronneberger et al. 2015, eq. 2.
    """
    maps = []
    for case in target:
        known = case < num_classes
        cells, _ = ndimage.label(((case > 0) & known).cpu().numpy())
        weights = class_weights(case[known], num_classes)
        balanced = F.pad(weights, (0, 1))[case.clamp(max=num_classes)]
        border = torch.from_numpy(border_weights(cells)).to(case.device)
        maps.append(torch.where(known, balanced + border, 0.0))
    return torch.stack(maps)


class WeightedCELoss(CaseLoss):
    """Cross-entropy weighted by `weight_map`, per voxel.

    Args:
        num_classes: Classes, background included.
        reduction: See `CaseLoss`.
        include_background: See `CaseLoss`; the background is one of its classes.

    Source:
        Ronneberger et al. 2015, eq. 1.
    """

    uses_background = True

    def batch_mean(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over a batch; see `CaseLoss`."""
        entropy = F.cross_entropy(logits.float(), target, reduction="none")
        return (weight_map(target, self.num_classes) * entropy).mean()

    def terms_mean(self, terms: VoxelTerms) -> Tensor:
        """The mean over a batch; see `CaseLoss`. Regions are weighted by the values they have."""
        weights = weight_map(terms.target, terms.num_indices)
        return terms.mean(weights.unsqueeze(1) * terms.entropy)
