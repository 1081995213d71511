"""Boxes of a few voxels and their scores, for the tests of the report."""

from __future__ import annotations

import numpy as np
import pandas as pd

from segmed.metrics import evaluate_case, scores_table
from segmed.structures import LabelClass

LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2))
SPACING_MM = (1.0, 1.0, 2.0)


def block(shift: int = 0) -> np.ndarray:
    """Two touching boxes, moved along the first axis."""
    label = np.zeros((16, 18, 10), dtype=np.uint8)
    label[4 + shift : 9 + shift, 5:9, 3:7] = 1
    label[4 + shift : 9 + shift, 9:13, 3:7] = 2
    return label


def scored(shifts: list[int | None]) -> pd.DataFrame:
    """Scores of a case for each shift; None is a prediction of nothing."""
    rows = []
    for number, shift in enumerate(shifts):
        prediction = np.zeros_like(block()) if shift is None else block(shift)
        rows += evaluate_case(
            prediction,
            block(),
            labels=LABELS,
            spacing_mm=SPACING_MM,
            case_id=f"case-{number:02d}",
        )
    return scores_table(rows)
