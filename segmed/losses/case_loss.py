"""MONAI's conventions of a loss, checked in one place: targets, reduction and background."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from segmed.encoding import LabelEncoding
from segmed.errors import UsageError, unknown_name
from segmed.losses.voxel_terms import VoxelReader, VoxelTerms

REDUCTIONS = ("mean", "sum", "none")


class CaseLoss(_Loss):
    """Loss of logits and class indices that is the mean of one value a case.

    Args:
        num_classes: Classes of the logits, background included.
        reduction: `mean` over the cases of a batch, their `sum`, or `none` for one value a case.
        include_background: As the loss is defined where not given; a loss that leaves no choice
            refuses the other.
        encoding: Meaning of logits and target, if structures are regions or some voxels are not
            annotated; else classes 0 to `num_classes - 1`.

    Raises:
        UsageError: An option has no meaning for this loss.
    """

    uses_background: ClassVar[bool | None] = None
    """Part of the background in the Dice; None where the caller decides."""

    takes_sigmoid: ClassVar[bool] = False
    """Takes one channel of logits for two classes."""

    checks_indices = True
    """Look for values beyond the class indices, on a CPU; a training, whose labels are known to
    hold none, does not."""

    def __init__(
        self,
        num_classes: int,
        *,
        reduction: str = "mean",
        include_background: bool | None = None,
        encoding: LabelEncoding | None = None,
    ) -> None:
        if reduction not in REDUCTIONS:
            raise unknown_name("reduction", str(reduction), REDUCTIONS)
        super().__init__(reduction=reduction)
        name, fixed = type(self).__name__, self.uses_background
        if fixed is not None and include_background not in (None, fixed):
            raise UsageError(
                f"{name} {'includes' if fixed else 'leaves out'} the background by its definition: "
                f"include_background={include_background} is not defined; leave it out, or use "
                "DiceCELoss"
            )
        self.num_classes = num_classes
        channels = num_classes if encoding is None else encoding.num_channels
        self._channels = {channels, 1} if channels == 2 and self.takes_sigmoid else {channels}
        indices = num_classes if encoding is None else len(encoding.stored_values)
        self._num_indices = max(indices, 2)  # a sigmoid tells 0 and 1 apart
        is_plain = encoding is None or encoding.is_plain
        self.reader = None if encoding is None or is_plain else VoxelReader(encoding)
        if self.reader is not None and include_background:
            raise UsageError(
                f"{name}: include_background=True is not defined for regions and for maps in which "
                "some voxels are not annotated; leave it out"
            )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss.

        Args:
            logits: `[B, K, *spatial]`.
            target: `[B, *spatial]` or `[B, 1, *spatial]`, class indices; 0 and 1 where K is 1.

        Returns:
            A scalar, or `[B]` with reduction `none`.

        Raises:
            UsageError: The target has another shape, or is not a map of the loss's class indices;
                values beyond them are looked for on a CPU alone.
        """
        logits, target = plain(logits), class_indices(logits, target)
        if logits.shape[1] not in self._channels:
            raise UsageError(
                f"the logits have {logits.shape[1]} channels, this loss is of {self.num_classes} "
                "classes, background included: give num_classes as the network has it"
            )
        self._require_known(target)
        if self.reduction == "mean":
            return self._mean(logits, target)
        cases = zip(logits.chunk(len(logits)), target.chunk(len(logits)), strict=True)
        values = torch.stack([self._mean(one, truth) for one, truth in cases])
        return values.sum() if self.reduction == "sum" else values

    def _require_known(self, target: Tensor) -> None:
        """Refuse class indices of no class; on a GPU the look at them would wait for the device."""
        if not self.checks_indices or target.device.type != "cpu" or target.numel() == 0:
            return
        low, high = (int(extreme) for extreme in target.aminmax())
        if low < 0 or high >= self._num_indices:
            raise UsageError(
                f"the target has class index {low if low < 0 else high}; this loss takes 0 to "
                f"{self._num_indices - 1}, 0 the background: give indices, not the file's values"
            )

    def _mean(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.reader is None:
            return self.batch_mean(logits, target)
        return self.terms_mean(self.reader(logits, target))

    def batch_mean(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over a batch.

        Args:
            logits: `[B, K, *spatial]`.
            target: `[B, *spatial]`, class indices.
        """
        raise NotImplementedError

    def terms_mean(self, terms: VoxelTerms) -> Tensor:
        """The mean over a batch of regions, or of annotated voxels.

        Args:
            terms: What the encoding reads in logits and target.
        """
        raise NotImplementedError


def plain(tensor: Tensor) -> Tensor:
    """The tensor of a MetaTensor, whose bookkeeping would slow every operation; others as given."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


def class_indices(logits: Tensor, target: Tensor) -> Tensor:
    """A target as `[B, *spatial]` int64, with or without MONAI's channel axis.

    Args:
        logits: `[B, K, *spatial]`.
        target: Class indices, `[B, *spatial]` or `[B, 1, *spatial]`.

    Raises:
        UsageError: It has another shape, such as that of a one-hot map, or is not of integers.
    """
    target = plain(target)
    grid = (logits.shape[0], *logits.shape[2:])
    if target.ndim == logits.ndim and target.shape[1] == 1:
        target = target[:, 0]
    if tuple(target.shape) != grid:
        raise UsageError(
            f"the target has shape {tuple(target.shape)} and the logits {tuple(logits.shape)}; "
            "give class indices [B, *spatial] or [B, 1, *spatial], not a one-hot map"
        )
    if target.is_floating_point() and not bool((target == target.round()).all()):
        raise UsageError("the target has values that are not class indices; give integers")
    return target.long()
