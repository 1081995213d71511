"""The scores as MONAI metrics: called with each batch, averaged at the end of a round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmed.encoding import LabelEncoding
from segmed.errors import MetricError, unknown_name
from segmed.geometry import Grid, require_same_grid
from segmed.metatensor import CumulativeIterationMetric
from segmed.metrics import overlap
from segmed.metrics.case import evaluate_case
from segmed.metrics.score import METRICS
from segmed.one_line import OneLine
from segmed.structures import LabelClass

VOXEL_SCORES = {
    "dice": overlap.dice,
    "iou": overlap.iou,
    "precision": overlap.precision,
    "recall": overlap.recall,
    "f1": overlap.f1,
    "volume_similarity": overlap.volume_similarity,
}
"""Scores that counts of voxels decide, without surfaces or spacing."""

SURFACE_SCORES = ("hd_mm", "hd95_mm", "assd_mm", "nsd")

REDUCTIONS = ("mean", "mean_batch", "none")


class CumulativeScores(OneLine, CumulativeIterationMetric):
    """Scores of `evaluate_case` by the interface of MONAI's metrics.

    Where exactly one of prediction and reference has a structure, scores in 0..1 are 0 and
    distances the diagonal of the image; where neither has it, the score is NaN and enters no mean.

    Args:
        num_classes: Classes, background included; classes 1 and up are scored.
        metric_names: Columns of `segmed.metrics.METRICS`, at least one.
        reduction: `mean` averages the structures within each case, then the cases, as the row
            `mean` of `summarise`; `mean_batch` averages the cases for each structure; `none` gives
            the scores.
        tolerance_mm: Tolerance of NSD and width of the band of boundary IoU, in mm.
        encoding: Meaning of the class indices of a plan whose structures are regions or whose
            voxels are not all annotated: its structures are scored, K - 1 is their number, and
            maps are class indices, not one-hot.

    Raises:
        UsageError: A metric or reduction is unknown.
        MetricError: There is no metric, no class besides the background, or the encoding has
            another number of channels than there are classes.
    """

    def __init__(
        self,
        num_classes: int,
        metric_names: Sequence[str],
        *,
        reduction: str = "mean",
        tolerance_mm: float = 1.0,
        encoding: LabelEncoding | None = None,
    ) -> None:
        super().__init__()
        known = [metric.name for metric in METRICS]
        self.metric_names = (metric_names,) if isinstance(metric_names, str) else (*metric_names,)
        for name in self.metric_names:
            if name not in known:
                raise unknown_name("metric", name, known)
        if encoding is not None and encoding.num_channels != num_classes:
            raise MetricError(
                f"num_classes is {num_classes}, the encoding has {encoding.num_channels} channels "
                f"({', '.join(encoding.channel_names)}): give the same"
            )
        if not self.metric_names or (num_classes < 2 and encoding is None):
            raise MetricError(
                f"scores need at least one metric and two classes, got {len(self.metric_names)} "
                f"and {num_classes}; the background counts as a class"
            )
        self.num_classes = num_classes
        self.is_plain = encoding is None or encoding.is_plain
        self.encoding = encoding
        self._encoding = _indexed(encoding) if encoding is not None else _numbered(num_classes)
        self.reduction = _known_reduction(reduction)
        self.tolerance_mm = tolerance_mm

    def _compute_tensor(
        self,
        y_pred: Tensor,
        y: Tensor | None = None,
        spacing: float | Sequence[float] | None = None,
        **kwargs: Any,
    ) -> Tensor | list[Tensor]:
        """Score a batch.

        Args:
            y_pred: One-hot `[B, K, *spatial]`, or class indices `[B, 1, *spatial]`.
            y: The reference in either form.
            spacing: Voxel edge along each axis in mm, or one for all. A MetaTensor reference brings
                its own; scores of voxels need none.
            kwargs: None is defined.

        Returns:
            `[B, K - 1]` for each metric; a tensor where there is one metric, else a list.

        Raises:
            MetricError: A shape, a value or the spacing does not fit, or y is missing.
            GeometryError: Two MetaTensors lie on different grids.
        """
        if kwargs:
            raise MetricError(
                f"{type(self).__name__} takes y_pred, y and spacing, got {', '.join(kwargs)}"
            )
        if y is None:
            raise MetricError(f"{type(self).__name__} needs a reference: give y")
        predicted, true = self._map(y_pred, "y_pred"), self._map(y, "y")
        if predicted.shape != true.shape:
            raise MetricError(
                f"y_pred and y have different shapes: {tuple(predicted.shape)} and "
                f"{tuple(true.shape)}; bring them to one grid first"
            )
        needy = [name for name in self.metric_names if name not in VOXEL_SCORES]
        edges = grids_of(y_pred, y, spacing, needs_spacing=", ".join(needy))
        rows = [self._case(*case) for case in zip(predicted, true, edges, strict=True)]
        values = torch.tensor(rows, dtype=torch.float64)  # [B, K - 1, metrics]
        found = [part.contiguous() for part in values.unbind(-1)]
        return found[0] if len(found) == 1 else found

    def _map(self, values: Tensor, name: str) -> Tensor:
        """Class indices of one side of a batch."""
        if self.is_plain:
            return class_map(values, self.num_classes, name)
        count = len(self._encoding.stored_values)
        if values.ndim not in (4, 5) or values.shape[1] != 1:
            raise MetricError(
                f"{name} has shape {tuple(values.shape)}; give [B, 1, *spatial] class indices: "
                "regions and unannotated voxels have no one-hot map"
            )
        plain = values.as_tensor() if hasattr(values, "as_tensor") else values
        return _indices(plain[:, 0], count, name)

    def _case(self, predicted: Tensor, true: Tensor, spacing_mm: Sequence[float]) -> list[Any]:
        if all(name in VOXEL_SCORES for name in self.metric_names):
            counted = overlap.structure_counts(predicted, true, self._encoding)
            return [[VOXEL_SCORES[name](one) for name in self.metric_names] for one in counted]
        scores = evaluate_case(
            predicted,
            true,
            labels=self._encoding,
            spacing_mm=spacing_mm,
            case_id="",
            tolerance_mm=self.tolerance_mm,
        )
        return [[getattr(score, name) for name in self.metric_names] for score in scores]

    def aggregate(self, reduction: str | None = None) -> Any:
        """Average the scores of a round.

        Args:
            reduction: As in the constructor, which is taken where not given.

        Returns:
            For each metric a scalar (`mean`), `[K - 1]` (`mean_batch`) or `[cases, K - 1]`
            (`none`); a tensor where there is one metric, else a list. A structure that no case
            could score is NaN in `mean_batch`.

        Raises:
            MetricError: Nothing was scored.
        """
        chosen = self.reduction if reduction is None else _known_reduction(reduction)
        buffer = self.get_buffer()
        found = [buffer] if isinstance(buffer, Tensor) else buffer
        if found is None or all(bool(values.isnan().all()) for values in found):
            count = 0 if found is None else len(found[0])
            raise MetricError(
                f"no score to average: {count} cases, all with prediction and reference empty; "
                "check the label values"
            )
        means = [_reduced(values, chosen) for values in found]
        return means[0] if len(means) == 1 else means


class DiceScore(CumulativeScores):
    """Dice of each structure, in voxels; see `CumulativeScores`.

    Args:
        num_classes: Classes, background included.
        reduction: See `CumulativeScores`.
        encoding: See `CumulativeScores`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        reduction: str = "mean",
        encoding: LabelEncoding | None = None,
    ) -> None:
        super().__init__(num_classes, ("dice",), reduction=reduction, encoding=encoding)


class SurfaceScores(CumulativeScores):
    """Hausdorff, HD95, ASSD (in mm) and NSD of each structure; see `CumulativeScores`.

    Args:
        num_classes: Classes, background included.
        metric_names: Some of `hd_mm`, `hd95_mm`, `assd_mm` and `nsd`, in the order of the results;
            MONAI's metric handler records the first one alone.
        reduction: See `CumulativeScores`.
        tolerance_mm: Tolerance of NSD, in mm.
        encoding: See `CumulativeScores`.
    """

    def __init__(
        self,
        num_classes: int,
        metric_names: Sequence[str] = SURFACE_SCORES,
        *,
        reduction: str = "mean",
        tolerance_mm: float = 1.0,
        encoding: LabelEncoding | None = None,
    ) -> None:
        super().__init__(
            num_classes,
            metric_names,
            reduction=reduction,
            tolerance_mm=tolerance_mm,
            encoding=encoding,
        )
        for name in self.metric_names:
            if name not in SURFACE_SCORES:
                raise unknown_name("surface score", name, SURFACE_SCORES)


def grids_of(
    y_pred: Tensor, y: Tensor, spacing: float | Sequence[float] | None, *, needs_spacing: str
) -> Iterator[tuple[float, ...]]:
    """Voxel edges of each case of a batch, in mm, after comparing the grids of MetaTensors.

    Args:
        y_pred: `[B, C, *spatial]`.
        y: The reference, whose own spacing is taken where none is given.
        spacing: Voxel edge along each axis, or one for all.
        needs_spacing: Scores that need it, for the message; empty where none does.

    Raises:
        MetricError: The spacing is needed and unknown.
        GeometryError: Two MetaTensors are on different grids.
    """
    dims = y.ndim - 2
    for index in range(len(y)):
        grid, other = (_grid_of(side, index) for side in (y, y_pred))
        if grid is not None and other is not None:
            require_same_grid(other, grid, names=("y_pred", "y"))
        if spacing is not None:
            edges = [spacing] * dims if isinstance(spacing, int | float) else list(spacing)
            yield tuple(float(edge) for edge in edges)
        elif grid is not None:
            yield grid.spacing_mm
        elif not needs_spacing:
            yield (1.0,) * dims
        else:
            raise MetricError(
                f"{needs_spacing} need the voxel spacing in mm: give spacing=, or a MetaTensor as y"
            )


def class_map(values: Tensor, num_classes: int, name: str) -> Tensor:
    """Class indices of a batch in MONAI's forms.

    Args:
        values: One-hot `[B, K, *spatial]`, or class indices `[B, 1, *spatial]`.
        num_classes: K.
        name: Argument, for messages.

    Returns:
        `[B, *spatial]`, integers.

    Raises:
        MetricError: Another number of channels, several classes or none in one voxel, or values
            that are not class indices.
    """
    plain = values.as_tensor() if hasattr(values, "as_tensor") else values
    if plain.ndim not in (4, 5) or plain.shape[1] not in (1, num_classes):
        raise MetricError(
            f"{name} has shape {tuple(plain.shape)}; give [B, 1, *spatial] class indices or "
            f"[B, {num_classes}, *spatial] one-hot maps of 2 or 3 axes"
        )
    if plain.shape[1] == 1:
        return _indices(plain[:, 0], num_classes, name)
    is_class = plain != 0
    if not bool((is_class.sum(dim=1) == 1).all()) or not bool((plain[is_class] == 1).all()):
        raise MetricError(
            f"{name} is not one-hot: every voxel needs a single class; take the class of the "
            "largest probability (MONAI: AsDiscrete(argmax=True, to_onehot=K))"
        )
    return is_class.to(torch.uint8).argmax(dim=1)


def _indices(values: Tensor, num_classes: int, name: str) -> Tensor:
    whole = values if not values.is_floating_point() else values.round()
    is_whole = whole is values or bool((whole == values).all())
    if not is_whole or (
        whole.numel() and (int(whole.min()) < 0 or int(whole.max()) >= num_classes)
    ):
        raise MetricError(
            f"{name} has values that are not class indices; give integers from 0 to "
            f"{num_classes - 1}"
        )
    return whole.to(torch.int32)


def _grid_of(values: Tensor, index: int) -> Grid | None:
    """Grid of one case of a batch; None for a plain tensor, which states none."""
    affine = getattr(values, "affine", None)
    if not isinstance(affine, Tensor):
        return None
    one = affine[index] if affine.ndim == 3 else affine
    return Grid(tuple(values.shape[2:]), np.asarray(one.cpu(), dtype=np.float64))


def _numbered(num_classes: int) -> LabelEncoding:
    """Classes 1 and up by their number."""
    classes = range(1, num_classes)
    return LabelEncoding(tuple(LabelClass(name=f"class {k}", value=k) for k in classes))


def _indexed(encoding: LabelEncoding) -> LabelEncoding:
    """The same structures with class indices in the place of label values."""
    pairs = enumerate(zip(encoding.labels, encoding.members, strict=True), start=1)
    labels = [
        label.model_copy(update={"value": index, "region": members if label.region else ()})
        for index, (label, members) in pairs
    ]
    return LabelEncoding(tuple(labels), encoding.ignore_index)


def _known_reduction(reduction: str) -> str:
    if reduction not in REDUCTIONS:
        raise unknown_name("reduction", reduction, REDUCTIONS)
    return reduction


def _reduced(values: Tensor, reduction: str) -> Tensor:
    """Scores `[cases, structures]` averaged; NaN enters no mean."""
    if reduction == "none":
        return values
    if reduction == "mean_batch":
        return values.nanmean(dim=0)
    return values.nanmean(dim=1).nanmean()
