"""Drift of an archive: the newest results of a model, over as many runs as it takes.

A watch that segments one study at a time, or a night of three, never has `MIN_STUDIES` studies of
its own. So the newest results of the model are judged whatever runs they are of, in **windows** of
at least 8, 16 and 32 studies, each of whole runs: a small window shows a large shift early, a large
one a small shift at all. A run of more studies is one window. Windows of the same studies are
tested once, and the alarm rule counts the windows.

An alarm **remains in force** until as many newer studies as raised it, at most 32, raise none and
are back: no drifted feature is apart in any window, whether that is significant or not. No window
reaches back beyond the last alarm: drifted studies are not held against later ones.
`drift.json` keeps the alarm.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segmed.archive.drift import (
    DRIFT_FILE,
    MIN_STUDIES,
    DriftRow,
    alarms_first,
    drift_table,
    watch,
)
from segmed.archive.ledger import Ledger
from segmed.io.atomic import whole_file, write_whole
from segmed.metrics.measures import Distributions, add_features

logger = logging.getLogger(__name__)

STATE_FILE = "drift.json"
WINDOWS = (MIN_STUDIES, 2 * MIN_STUDIES, 4 * MIN_STUDIES)
"""Least studies of each window."""


@dataclass(frozen=True)
class DriftAlarm:
    """The last alarm of an archive.

    Attributes:
        model: Hash of the model.
        run: Run at whose end it was raised; 0 if there was none.
        after: Run after which its windows began.
        first: First run of the studies that raised it.
        studies: Number of these studies.
        features: Drifting features; none any more once newer studies have shown the opposite.
        rows: Rows of the judgement that raised it.
    """

    model: str
    run: int = 0
    after: int = 0
    first: int = 0
    studies: int = 0
    features: tuple[str, ...] = ()
    rows: tuple[DriftRow, ...] = ()


@dataclass(frozen=True)
class DriftJudgement:
    """Drift at the end of a run.

    Attributes:
        rows: One row a feature, alarms in force first; empty if nothing was judged.
        alarm: The last alarm.
        is_judged: Whether there were enough studies to show drift.
    """

    rows: tuple[DriftRow, ...]
    alarm: DriftAlarm
    is_judged: bool


@dataclass(frozen=True)
class Window:
    """The newest studies of a model.

    Attributes:
        first: First run of theirs.
        studies: Number of studies, segmented or refused.
        refused: Number of those refused.
        values: Features of those segmented.
    """

    first: int
    studies: int
    refused: int
    values: Distributions


def judge_drift(
    ledger: Ledger, run: int, model: str, training: Distributions, *, out_dir: Path
) -> DriftJudgement:
    """Judge the drift at the end of a run; write `drift.csv`, alarms first, and `drift.json`.

    Args:
        ledger: The ledger.
        run: Number of the run.
        model: Hash of its model.
        training: Distributions of the training cases; may be empty.
        out_dir: Output folder of the archive.

    Returns:
        The judgement. Without distributions, or after a run without new studies, its rows are those
        of an alarm in force; without one an earlier `drift.csv` is removed.
    """
    known = read_alarm(out_dir, model)
    after = known.after if known.run == run else known.run  # the same run is judged once more
    begin = ledger.first_run_of(run)
    counts = ledger.judged_by_run(model, after=after, until=run)
    is_new = bool(counts) and counts[0][0] >= begin
    judgement = DriftJudgement(known.rows, known, is_judged=False)
    if training and is_new:
        found = windows(ledger, model, counts, run)
        judgement = _judged(found, training, replace(known, after=after), run=run, begin=begin)
    _write(judgement, known, out_dir)
    return judgement


def carry_over(out_dir: Path, model: str, run: int, features: tuple[str, ...]) -> None:
    """Keep a withdrawal that an earlier version noted in `quality.json` alone, if there is one."""
    if features and not (out_dir / STATE_FILE).exists():
        alarm = DriftAlarm(model, run, run, run, MIN_STUDIES, features)
        write_whole(out_dir / STATE_FILE, json.dumps(asdict(alarm), indent=2))


def _write(judgement: DriftJudgement, known: DriftAlarm, out_dir: Path) -> None:
    if judgement.alarm != known:
        write_whole(out_dir / STATE_FILE, json.dumps(asdict(judgement.alarm), indent=2))
    if not judgement.rows:
        (out_dir / DRIFT_FILE).unlink(missing_ok=True)
        return
    with whole_file(out_dir / DRIFT_FILE) as draft:
        drift_table(judgement.rows).to_csv(draft, index=False)


def windows(
    ledger: Ledger, model: str, counts: Sequence[tuple[int, int]], run: int
) -> list[Window]:
    """Windows of the newest studies up to a run, the smallest first.

    Args:
        ledger: The ledger.
        model: Hash of the model.
        counts: From `RunLedger.judged_by_run`.
        run: Number of the run.
    """
    found: list[Window] = []
    for least in WINDOWS:
        total, first = 0, run
        for number, studies in counts:
            total, first = total + studies, number
            if total >= least:
                break
        if not found or first < found[-1].first:
            found.append(_window(ledger, model, first, run))
    return found


def _window(ledger: Ledger, model: str, first: int, run: int) -> Window:
    values: Distributions = {}
    done = refused = 0
    for entry in ledger.entries(package=model, worked=(first, run)):
        if entry.state == "refused":
            refused += 1
        elif entry.state == "done":
            done += 1
            add_features(values, entry.measures)
    return Window(first, done + refused, refused, values)


def _judged(
    found: Sequence[Window], training: Distributions, known: DriftAlarm, *, run: int, begin: int
) -> DriftJudgement:
    """Judge windows, the smallest first, beside the alarm that is known."""
    number, newest = len(found), found[-1].studies - found[-1].refused
    tables = [
        watch(training, one.values, refused=(one.refused, one.studies), num_windows=number)
        for one in found
    ]
    is_enough = newest >= MIN_STUDIES
    own = next((place for place, one in enumerate(found) if one.first <= begin), -1)
    rows = tuple(_joined([tables[own], *tables]))
    features = tuple(row.feature for row in rows if row.is_alarm)
    if features:
        loud = [one for one, its in zip(found, tables, strict=True) if its[0].is_alarm]
        alarm = DriftAlarm(
            known.model, run, known.after, loud[-1].first, loud[-1].studies, features, rows
        )
        return DriftJudgement(rows, alarm, is_judged=True)
    is_back = not any(
        row.is_apart for its in tables for row in its if row.feature in known.features
    )
    is_over = known.run != run and newest >= min(known.studies, WINDOWS[-1]) and is_back
    if known.features and not is_over:
        return DriftJudgement(known.rows, known, is_judged=is_enough)
    return DriftJudgement(rows, replace(known, features=(), rows=()), is_judged=is_enough)


def _joined(tables: Sequence[Iterable[DriftRow]]) -> list[DriftRow]:
    """One row a feature: that of the last table with an alarm, else of the first table."""
    chosen: dict[str, DriftRow] = {}
    for rows in tables:
        for row in rows:
            if row.is_alarm or row.feature not in chosen:
                chosen[row.feature] = row
    return alarms_first(chosen.values())


def read_alarm(out_dir: Path, model: str) -> DriftAlarm:
    """Last alarm about a model in an output folder; one without a run if there is none."""
    path = out_dir / STATE_FILE
    if not path.is_file():
        return DriftAlarm(model)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(DriftRow(**row) for row in content.pop("rows"))
        features = tuple(content.pop("features"))
        alarm = DriftAlarm(**content, features=features, rows=rows)
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.warning("%s is damaged or of another version; drift of earlier runs is lost", path)
        return DriftAlarm(model)
    return alarm if alarm.model == model else DriftAlarm(model)
