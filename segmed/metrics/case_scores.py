"""All scores of all cases as one MONAI metric: the accumulation behind every evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from segmed.encoding import LabelEncoding
from segmed.errors import MetricError
from segmed.metatensor import CumulativeIterationMetric
from segmed.metrics.case import evaluate_case
from segmed.metrics.cumulative import grids_of
from segmed.metrics.score import METRICS, CaseScore
from segmed.metrics.summary import summarise
from segmed.metrics.table import scores_table
from segmed.one_line import OneLine
from segmed.structures import LabelClass


class CaseScores(OneLine, CumulativeIterationMetric):
    """Scores of label maps, each case and structure a row of a table; see `evaluate_case`.

    `segmed.evaluate`, `segmed evaluate` and `segmed compare` fill one case by case. A MONAI program
    calls it with batches. Rows are those of this process; none are gathered from others.

    Args:
        labels: Structures to score; or the encoding of a manifest, whose ignored value marks voxels
            of the reference that nobody annotated.
        tolerance_mm: Tolerance of NSD and width of the band of boundary IoU, in mm.
    """

    def __init__(
        self, labels: Sequence[LabelClass] | LabelEncoding, *, tolerance_mm: float = 1.0
    ) -> None:
        super().__init__()
        self.labels = labels
        self.tolerance_mm = tolerance_mm
        self.rows: list[CaseScore] = []

    def measure(
        self, prediction: Tensor, reference: Tensor, *, spacing_mm: Sequence[float], case_id: str
    ) -> list[CaseScore]:
        """Score one case without keeping the scores; threads may do so at once.

        Args:
            prediction: Label values, integers `[*spatial]`.
            reference: Label values on the same grid.
            spacing_mm: Voxel edge along each axis, in mm.
            case_id: Name of the case in the table.

        Raises:
            MetricError: As `evaluate_case`.
            GeometryError: The two are on different grids.
        """
        return evaluate_case(
            prediction,
            reference,
            labels=self.labels,
            spacing_mm=spacing_mm,
            case_id=case_id,
            tolerance_mm=self.tolerance_mm,
        )

    def add(self, rows: Sequence[CaseScore]) -> None:
        """Keep the scores of one case, from `measure`."""
        self.rows += rows

    def _compute_tensor(
        self,
        y_pred: Tensor,
        y: Tensor | None = None,
        spacing: float | Sequence[float] | None = None,
        case_ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Score a batch and keep its rows.

        Args:
            y_pred: Label values, integers `[B, 1, *spatial]`.
            y: The reference in the same form.
            spacing: Voxel edge along each axis in mm, or one for all; a MetaTensor brings its own.
            case_ids: Name of each case; numbers from 1 if left out.
            kwargs: None is defined.

        Returns:
            `[B, structures, metrics]` float64, metrics in the order of `METRICS`.

        Raises:
            MetricError: A shape, a value or the spacing does not fit, or y is missing.
            GeometryError: Two MetaTensors are on different grids.
        """
        if kwargs or y is None:
            got = ", ".join(kwargs) or "no y"
            raise MetricError(f"CaseScores takes y_pred, y, spacing and case_ids, got {got}")
        if y_pred.shape != y.shape or y.ndim not in (4, 5) or y.shape[1] != 1:
            raise MetricError(
                f"y_pred and y have shapes {tuple(y_pred.shape)} and {tuple(y.shape)}; give label "
                "values [B, 1, *spatial] on one grid"
            )
        first = len({row.case for row in self.rows}) + 1
        names = case_ids or [str(number) for number in range(first, first + len(y))]
        if len(names) != len(y):
            raise MetricError(f"{len(names)} case_ids are given for {len(y)} cases")
        edges = grids_of(y_pred, y, spacing, needs_spacing="the distances")
        scored = []
        for number, (name, spacing_mm) in enumerate(zip(names, edges, strict=True)):
            sides = (_plain(side)[number, 0] for side in (y_pred, y))
            scored.append(self.measure(*sides, spacing_mm=spacing_mm, case_id=name))
        for rows in scored:
            self.add(rows)
        values = [
            [[getattr(row, metric.name) for metric in METRICS] for row in rows] for rows in scored
        ]
        return torch.tensor(values, dtype=torch.float64)

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        self.rows = []

    def table(self) -> pd.DataFrame:
        """Return the rows as a table; see `scores_table`.

        Raises:
            MetricError: A case occurs twice.
        """
        return scores_table(self.rows)

    def aggregate(self) -> pd.DataFrame:
        """Return the means over cases beside their counts; see `summarise`.

        Raises:
            MetricError: A case occurs twice, or nothing was scored.
        """
        return summarise(self.table())


def _plain(values: Tensor) -> Tensor:
    return values.as_tensor() if hasattr(values, "as_tensor") else values
