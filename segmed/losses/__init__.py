"""Training losses: `make_loss(name, num_classes=...)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segmed.doors import checked
from segmed.encoding import LabelEncoding
from segmed.errors import unknown_name
from segmed.losses.case_loss import CaseLoss
from segmed.losses.deep_supervision import DeepSupervisionLoss, head_weights
from segmed.losses.dice_ce import DiceCELoss
from segmed.losses.ms_ssim import ms_ssim
from segmed.losses.unet3plus import HybridLoss
from segmed.losses.unet_weight_map import WeightedCELoss, border_weights, weight_map
from segmed.losses.unetpp import BCEDiceLoss

LOSSES: dict[str, Callable[..., CaseLoss]] = {
    "dice_ce": DiceCELoss,
    "unet_weighted_ce": WeightedCELoss,
    "unetpp_bce_dice": BCEDiceLoss,
    "unet3plus_hybrid": HybridLoss,
}

HEAD_RATIO = {"dice_ce": 0.5, "unet_weighted_ce": 0.5}
"""Weight of a head over the one before; the losses of U-Net++ and UNet 3+ weight all alike."""


def list_losses() -> tuple[str, ...]:
    """Names that `make_loss` accepts.

    Returns:
        The names.
    """
    return tuple(LOSSES)


@checked()
def make_loss(
    name: str,
    *,
    num_classes: int,
    deep_supervision_weights: Sequence[float] | None = None,
    reduction: str = "mean",
    include_background: bool | None = None,
    encoding: LabelEncoding | None = None,
    checks_indices: bool = True,
) -> DeepSupervisionLoss:
    """A loss that takes logits, or a list of them, and class indices; usable as one of MONAI's.

    Args:
        name: One of `list_losses()`.
        num_classes: Classes of the logits, background included.
        deep_supervision_weights: One for each head, finest first; None halves them from head to
            head, or weights them alike with the losses of U-Net++ and UNet 3+, as their papers do.
        reduction: `mean`; `sum` or `none` over the cases where the loss has a value for each.
        include_background: As the loss is defined where not given; refused where it has no choice.
        encoding: Of the plan, if structures are regions or some voxels are not annotated.
        checks_indices: Refuse a target with values beyond the class indices; on a CPU alone.

    Returns:
        A module `(logits [B, K, *spatial] | list of them, target) -> scalar`, the target
        `[B, *spatial]` or `[B, 1, *spatial]`.

    Raises:
        UsageError: The name is unknown, weights are not positive, or an option has no meaning.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    background = {} if include_background is None else {"include_background": include_background}
    loss = LOSSES[name](num_classes, reduction=reduction, encoding=encoding, **background)
    loss.checks_indices = checks_indices
    return DeepSupervisionLoss(loss, deep_supervision_weights, ratio=HEAD_RATIO.get(name, 1.0))


__all__ = [
    "BCEDiceLoss",
    "CaseLoss",
    "DiceCELoss",
    "HybridLoss",
    "WeightedCELoss",
    "border_weights",
    "head_weights",
    "list_losses",
    "make_loss",
    "ms_ssim",
    "weight_map",
]
