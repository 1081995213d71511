"""Drift detection: compare images and results of an archive with those of the training.

`segmed.archive.drift_windows` chooses the studies of an archive that are compared.

Images are compared with the training images. Volumes and flags are those of results, so they are
compared with the model's own results on held-out cases (`segmed.metrics.training_norms.RESULTS`):
a model's results have more flags than references. Of a package that does not keep these, flags are
not compared.

**Alarm rule.** A feature raises the alarm when all three conditions are true:

1. there are at least `MIN_STUDIES` studies;
2. the two-sided Kolmogorov-Smirnov test of the studies against training gives p < `ALPHA` divided
   by the number of features and of windows (Bonferroni);
3. their median is more than `MIN_SHIFT` training interquartile ranges from the training median, so
   that many studies do not raise the alarm over nothing.

The share of flagged studies raises it when one has at least `MIN_STUDIES`, Fisher's one-sided exact
test against the held-out results gives p < `ALPHA` divided likewise, and the share is at least
`MIN_RATE_STEP` higher. The share of refused studies is watched in the same way by the binomial test
against the share that the caller expects.

**False alarms.** Studies that are exchangeable with the training cases raise any alarm with a
probability of at most `ALPHA`, 1 %, each time that they are judged.

Source:
    Massey 1951, JASA 46(253), for the Kolmogorov-Smirnov test; Fisher 1922, Journal of the Royal
    Statistical Society 85(1), for the comparison of two shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from segmed.metrics.measures import FLAGGED, PREDICTED_QUALITY, VOLUME, Distributions

SCHEMA_VERSION = 1
MIN_STUDIES = 8
ALPHA = 0.01
MIN_SHIFT = 0.5
MIN_RATE_STEP = 0.1
REFUSED = "refused"
SMALLEST_CHANCE = 1e-3
"""An expected share of zero is never quite so."""

DRIFT_FILE = "drift.csv"
OLD_COLUMNS = {"num_night": "num_run", "night": "run"}
"""Columns of `drift.csv` as earlier versions wrote them."""


@dataclass(frozen=True)
class DriftRow:
    """One feature of the studies that are judged beside the training.

    Attributes:
        feature: Such as `volume_ml:anterior`, `spacing_mm:2`, `intensity:0:median`, `flagged`.
        num_training: Training values.
        num_run: Values of the studies that are judged.
        training: Training median, or share.
        run: Median of these studies, or share.
        shift: Distance of the medians in training interquartile ranges; for shares their
            difference.
        p_value: Of the test that the alarm rule names.
        is_alarm: Whether the alarm rule is fulfilled.
    """

    feature: str
    num_training: int
    num_run: int
    training: float
    run: float
    shift: float
    p_value: float
    is_alarm: bool

    @property
    def is_apart(self) -> bool:
        """True if the studies differ from the training by as much as an alarm needs."""
        if self.feature in (FLAGGED, REFUSED):
            return self.shift >= MIN_RATE_STEP
        return abs(self.shift) > MIN_SHIFT


def read_drift(out_dir: Path) -> list[DriftRow]:
    """Return the drift rows of an output folder; empty if its last run was not judged."""
    path = out_dir / DRIFT_FILE
    if not path.exists():
        return []
    table = pd.read_csv(path).rename(columns=OLD_COLUMNS)
    records = table.to_dict("records")
    return [DriftRow(**{str(name): value for name, value in row.items()}) for row in records]


def watch(
    training: Distributions,
    current: Distributions,
    *,
    refused: tuple[int, int] = (0, 0),
    expected_refused: float = 0.05,
    num_windows: int = 1,
) -> list[DriftRow]:
    """Compare studies with the training by the alarm rule of this module.

    Args:
        training: Distributions of the training cases, from the package.
        current: Those of the studies.
        refused: Studies refused, and studies met.
        expected_refused: Share of refused studies that is normal for this archive.
        num_windows: Number of sets of studies that are judged at once.

    Returns:
        One row a feature, alarms first, then by shift.
    """
    names = sorted(training.keys() & current.keys())
    num_tests = (len(names) + 1) * num_windows
    rows = [
        _flagged_row(training[name], current[name], num_tests)
        if name == FLAGGED
        else _value_row(name, training[name], current[name], num_tests)
        for name in names
    ]
    num_refused, num_met = refused
    rows.append(_refused_row(expected_refused, num_refused, num_met, num_tests))
    return alarms_first(rows)


def alarms_first(rows: Iterable[DriftRow]) -> list[DriftRow]:
    """Sort rows: alarms, then by shift."""
    return sorted(rows, key=lambda row: (not row.is_alarm, -abs(row.shift), row.feature))


def _value_row(
    name: str, training: Sequence[float], current: Sequence[float], num_tests: int
) -> DriftRow:
    low, middle, high = np.percentile(training, [25, 50, 75])
    median = float(np.median(current))
    step = median - float(middle)
    # A feature that never varied in training has no range: any step is a whole one.
    shift = step / float(high - low) if high > low else float(np.sign(step))
    p_value = float(stats.ks_2samp(training, current, method="asymp").pvalue)
    is_alarm = (
        len(current) >= MIN_STUDIES and p_value < ALPHA / num_tests and abs(shift) > MIN_SHIFT
    )
    return DriftRow(
        name, len(training), len(current), float(middle), median, shift, p_value, is_alarm
    )


def _flagged_row(training: Sequence[float], current: Sequence[float], num_tests: int) -> DriftRow:
    """Shares of flagged results: of the run and of the held-out cases, both of them samples."""
    known, now = round(sum(training)), round(sum(current))
    table = [[now, len(current) - now], [known, len(training) - known]]
    p_value = float(stats.fisher_exact(table, alternative="greater").pvalue)
    usual, counts = known / len(training), (now, len(current))
    return _share_row(FLAGGED, usual, counts, p_value, num_tests, num_training=len(training))


def _refused_row(expected: float, refused: int, met: int, num_tests: int) -> DriftRow:
    """Share of refused studies beside the expected one."""
    p_value = 1.0
    if met:
        chance = min(max(expected, SMALLEST_CHANCE), 1.0)
        p_value = float(stats.binomtest(refused, met, chance, alternative="greater").pvalue)
    return _share_row(REFUSED, expected, (refused, met), p_value, num_tests)


def _share_row(
    name: str,
    usual: float,
    counts: tuple[int, int],
    p_value: float,
    num_tests: int,
    *,
    num_training: int = 1,
) -> DriftRow:
    """A row of shares, of which `counts` gives the run's: cases that have it, and all."""
    found, number = counts
    share = found / number if number else 0.0
    is_alarm = (
        number >= MIN_STUDIES and p_value < ALPHA / num_tests and share - usual >= MIN_RATE_STEP
    )
    return DriftRow(name, num_training, number, usual, share, share - usual, p_value, is_alarm)


def in_words(feature: str) -> str:
    """Name of a feature with its unit, for a reader.

    Args:
        feature: Such as `volume_ml:anterior`; one of another form stays as it is.
    """
    kind, _, rest = feature.partition(":")
    channel, _, what = rest.partition(":")
    words = {
        FLAGGED: "share of results with a quality flag",
        REFUSED: "share of cases refused",
        PREDICTED_QUALITY: "predicted quality",
        VOLUME.rstrip(":"): f"volume of {rest} in ml",
        "spacing_mm": f"voxel edge {channel} in mm, by size",
        "intensity": f"{what} of the intensities of channel {channel}",
    }
    return words.get(kind, feature)


def num_judged(rows: Iterable[DriftRow]) -> int:
    """Studies whose features are judged; refused ones have none.

    Args:
        rows: From `watch`.
    """
    return max((row.num_run for row in rows if row.feature != REFUSED), default=0)


def drift_table(rows: Sequence[DriftRow]) -> pd.DataFrame:
    """The rows as a table for a report."""
    return pd.DataFrame([row.__dict__ for row in rows])


def drift_metrics(rows: Sequence[DriftRow]) -> dict[str, float]:
    """The rows as metrics for a tracker: `drift/FEATURE` is the shift, `drift/alarms` a count."""
    metrics = {f"drift/{row.feature.replace(':', '.')}": row.shift for row in rows}
    return {**metrics, "drift/alarms": float(sum(row.is_alarm for row in rows))}
