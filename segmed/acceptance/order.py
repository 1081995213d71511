"""Order of cases that depends on their scores alone, so that resampled statistics do, too."""

from __future__ import annotations

import numpy as np
import pandas as pd

from segmed.metrics.summary import RECORDED_METRICS


def in_score_order(table: pd.DataFrame) -> pd.DataFrame:
    """A table of scores with its cases sorted by their scores.

    A seeded bootstrap draws places of cases. In this order the same scores give the same interval,
    whichever sites they come from and however the cases are called.

    Args:
        table: As from `segmed.metrics.scores_table`; columns that begin with `against_` count, too.
    """
    columns = [name for name in table.columns if name.removeprefix("against_") in RECORDED_METRICS]
    wide = table.set_index(["case", "label"])[columns].unstack("label").sort_index(axis=1)
    values = wide.fillna(-1.0).to_numpy(dtype=np.float64)
    place = dict(zip(wide.index[np.lexsort(values.T[::-1])], range(len(wide)), strict=True))
    rows = np.argsort(table["case"].map(place).to_numpy(dtype=np.int64), kind="stable")
    return table.iloc[rows].reset_index(drop=True)
