"""The scores as MONAI metrics: called with each batch, averaged at the end of a round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from segmed.errors import MetricError, unknown_name
from segmed.geometry import Grid, require_same_grid
from segmed.metrics import overlap
from segmed.metrics.case import evaluate_case
from segmed.metrics.pair import prepare_pair
from segmed.metrics.score import METRICS
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


class CumulativeScores(CumulativeIterationMetric):  # type: ignore[misc]  # MONAI is untyped
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

    Raises:
        UsageError: A metric or reduction is unknown.
        MetricError: There is no metric, or no class besides the background.
    """

    def __init__(
        self,
        num_classes: int,
        metric_names: Sequence[str],
        *,
        reduction: str = "mean",
        tolerance_mm: float = 1.0,
    ) -> None:
        super().__init__()
        known = [metric.name for metric in METRICS]
        self.metric_names = (metric_names,) if isinstance(metric_names, str) else (*metric_names,)
        for name in self.metric_names:
            if name not in known:
                raise unknown_name("metric", name, known)
        if not self.metric_names or num_classes < 2:
            raise MetricError(
                f"scores need at least one metric and two classes, got {len(self.metric_names)} "
                f"and {num_classes}; the background counts as a class"
            )
        self.num_classes = num_classes
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
        predicted, true = (
            class_map(side, self.num_classes, name) for side, name in ((y_pred, "y_pred"), (y, "y"))
        )
        if predicted.shape != true.shape:
            raise MetricError(
                f"y_pred and y have different shapes: {tuple(predicted.shape)} and "
                f"{tuple(true.shape)}; bring them to one grid first"
            )
        edges = self._edges_of(y_pred, y, spacing, true)
        rows = [self._case(*case) for case in zip(predicted, true, edges, strict=True)]
        values = torch.tensor(rows, dtype=torch.float64)  # [B, K - 1, metrics]
        found = [part.contiguous() for part in values.unbind(-1)]
        return found[0] if len(found) == 1 else found

    def _case(self, predicted: Tensor, true: Tensor, spacing_mm: Sequence[float]) -> list[Any]:
        classes = range(1, self.num_classes)
        if all(name in VOXEL_SCORES for name in self.metric_names):
            pair = prepare_pair(predicted, true, spacing_mm)
            matrix = overlap.confusion_matrix(pair.prediction, pair.reference, classes)
            counted = [overlap.counts_of(matrix, [index]) for index in classes]
            return [[VOXEL_SCORES[name](one) for name in self.metric_names] for one in counted]
        labels = [LabelClass(name=f"class {index}", value=index) for index in classes]
        scores = evaluate_case(
            predicted,
            true,
            labels=labels,
            spacing_mm=spacing_mm,
            case_id="",
            tolerance_mm=self.tolerance_mm,
        )
        return [[getattr(score, name) for name in self.metric_names] for score in scores]

    def _edges_of(
        self,
        y_pred: Tensor,
        y: Tensor,
        spacing: float | Sequence[float] | None,
        true: Tensor,
    ) -> Iterator[tuple[float, ...]]:
        """Voxel edges of each case of a batch."""
        dims = true.ndim - 1
        for index in range(len(true)):
            grid, other = (_grid_of(side, index, true) for side in (y, y_pred))
            if grid is not None and other is not None:
                require_same_grid(other, grid, names=("y_pred", "y"))
            if spacing is not None:
                edges = [spacing] * dims if isinstance(spacing, int | float) else list(spacing)
                yield tuple(float(edge) for edge in edges)
            elif grid is not None:
                yield grid.spacing_mm
            elif all(name in VOXEL_SCORES for name in self.metric_names):
                yield (1.0,) * dims
            else:
                raise MetricError(
                    f"{', '.join(self.metric_names)} need the voxel spacing in mm: give spacing=, "
                    "or a MetaTensor as y"
                )

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
    """

    def __init__(self, num_classes: int, *, reduction: str = "mean") -> None:
        super().__init__(num_classes, ("dice",), reduction=reduction)


class SurfaceScores(CumulativeScores):
    """Hausdorff, HD95, ASSD (in mm) and NSD of each structure; see `CumulativeScores`.

    Args:
        num_classes: Classes, background included.
        metric_names: Some of `hd_mm`, `hd95_mm`, `assd_mm` and `nsd`, in the order of the results;
            MONAI's metric handler records the first one alone.
        reduction: See `CumulativeScores`.
        tolerance_mm: Tolerance of NSD, in mm.
    """

    def __init__(
        self,
        num_classes: int,
        metric_names: Sequence[str] = SURFACE_SCORES,
        *,
        reduction: str = "mean",
        tolerance_mm: float = 1.0,
    ) -> None:
        super().__init__(num_classes, metric_names, reduction=reduction, tolerance_mm=tolerance_mm)
        for name in self.metric_names:
            if name not in SURFACE_SCORES:
                raise unknown_name("surface score", name, SURFACE_SCORES)


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
            that are no class index.
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
    if not bool((whole == values).all()) or bool(((whole < 0) | (whole >= num_classes)).any()):
        raise MetricError(
            f"{name} has values that are no class index; give integers from 0 to {num_classes - 1}"
        )
    return whole.to(torch.int32)


def _grid_of(values: Tensor, index: int, like: Tensor) -> Grid | None:
    """Grid of one case of a batch; None for a plain tensor, which states none."""
    affine = getattr(values, "affine", None)
    if not isinstance(affine, Tensor):
        return None
    one = affine[index] if affine.ndim == 3 else affine
    return Grid(tuple(like.shape[1:]), np.asarray(one.cpu(), dtype=np.float64))


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
