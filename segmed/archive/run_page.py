"""Output of a run for people: its page and the table of volumes."""

from __future__ import annotations

import base64
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from segmed.archive.drift import DriftRow, read_drift
from segmed.archive.gallery import picture_of
from segmed.archive.ledger import Entry, Ledger
from segmed.archive.model import Model
from segmed.archive.naming import is_hash_name
from segmed.archive.outcomes import STATUS
from segmed.archive.quality_bound import ArchiveBound, settle_bound
from segmed.archive.review.field import read_field_score
from segmed.archive.triage import by_review_priority, in_words, quality_in_words
from segmed.archive.volumes import write_volumes
from segmed.report.archive_page import (
    ArchivePage,
    FailedStudy,
    Remark,
    ShownStudy,
    write_archive_page,
)

PAGE_FILE = "report.html"
VOLUMES_NAME = "volumes"
PICTURES = "pictures"
PAGES = "reports"
SHOWN_STUDIES = 500
SHOWN_FAILURES = 1000
SHOWN_REMARKS = 500
SHOWN_PICTURES = 48

COUNTED = ("done", "flagged", "remarked", *set(STATUS.values()))
"""Counts of studies on the page."""


@dataclass
class _RunTally:
    """A run with those that were cut off before it, counted while its entries pass."""

    first: int
    run: int
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[FailedStudy] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    settled: int = 0

    def segmented(self, ledger: Ledger) -> Iterator[Entry]:
        """The studies that this run segmented; the others are counted on the way."""
        for _, entry in ledger.met(self.run):
            status = STATUS[entry.state]
            if status == "pending":
                self.counts["pending"] += 1
            elif not self.first <= entry.worked <= self.run:
                self.settled += 1
            elif status == "done":
                self.counts["done"] += 1
                self.counts["flagged"] += bool(entry.measures.get("flags"))
                self._note(entry)
                yield entry
            else:
                self.counts[status] += 1
                self.reasons[entry.reason] += 1
                if len(self.failures) < SHOWN_FAILURES:
                    self.failures.append(
                        FailedStudy(entry.study, status, entry.reason, entry.message)
                    )

    def _note(self, entry: Entry) -> None:
        notes = entry.measures.get("notes")
        self.counts["remarked"] += bool(notes)
        if notes and len(self.remarks) < SHOWN_REMARKS:
            self.remarks.append(Remark(entry.study, "; ".join(notes)))


def write_run_page(
    ledger: Ledger,
    out_dir: Path,
    model: Model,
    *,
    table: str = "csv",
    goes_on: bool = False,
    bound: ArchiveBound | None = None,
) -> Path:
    """Write the last run's page, volumes table and `drift.csv`, in memory of constant size.

    The page is `report.html`; a copy is kept as `reports/run-NUMBER.html`. It lists the studies of
    this run and of the interrupted runs that it continued, after the drift alarms. Outputs named
    by hash are linked. Other names may identify patients and are listed in `index.csv` only.

    Args:
        ledger: The ledger.
        out_dir: The output folder.
        model: The model of the run.
        table: Kind of the volumes table, `csv` or `parquet`.
        goes_on: The run has not ended: its pictures stay for the next page.
        bound: The settled promise of the run; it is settled here if not given.

    Returns:
        `report.html`.
    """
    run = ledger.last_run() or 0
    bound = settle_bound(ledger, run, model, out_dir) if bound is None else bound
    tally = _RunTally(ledger.first_run_of(run), run)
    studies = by_review_priority(tally.segmented(ledger), SHOWN_STUDIES)
    judged = read_field_score(out_dir, model.hash)
    content = ArchivePage(
        run=run,
        model=model.name,
        started=datetime.fromtimestamp(ledger.started(run), UTC),
        counts={key: tally.counts[key] for key in COUNTED},
        settled=tally.settled,
        reasons=dict(tally.reasons.most_common()),
        failures=sorted(tally.failures, key=lambda item: (item.status, item.reason, item.study)),
        remarks=tally.remarks,
        studies=list(_shown(studies, out_dir / PICTURES, bound)),
        structures=[label.name for label in model.labels],
        has_volumes=not model.is_of_planes,
        warnings=[
            *([f"Predicted quality {bound.sentence}."] if bound.withdrawn else []),
            *_drift_alarms(read_drift(out_dir)),
        ],
        promise="" if bound.withdrawn else bound.sentence,
        to_review=bound.to_review if bound.model else None,
        provenance={
            "model hash": model.hash,
            "outputs": str(tally.counts["done"]),
            **({} if judged is None else {"in the field": judged.sentence}),
        },
    )
    quality_of = bound.quality_of if bound.model else None
    table_file = out_dir / f"{VOLUMES_NAME}.{table}"
    write_volumes(ledger, table_file, model.labels, quality_of, of_planes=model.is_of_planes)
    number = ledger.first_round_of(run)
    write_archive_page(out_dir / PAGES / f"run-{number:04d}.html", content, root="../")
    path = write_archive_page(out_dir / PAGE_FILE, content)
    if not goes_on:
        shutil.rmtree(out_dir / PICTURES, ignore_errors=True)  # the page has taken them in
    return path


def _shown(entries: Sequence[Entry], pictures: Path, bound: ArchiveBound) -> Iterator[ShownStudy]:
    left = SHOWN_PICTURES
    for entry in entries:
        picture = picture_of(pictures, entry.key)
        is_public = is_hash_name(entry)
        has_picture = left > 0 and picture.is_file()
        left -= has_picture
        yield ShownStudy(
            study=entry.study,
            output=Path(str(entry.output)).name if is_public else "named in index.csv",
            link=quote(str(entry.output)) if is_public else "",
            flags=in_words(entry.measures.get("flags", ())),
            volumes_ml=entry.measures.get("volumes_ml", {}),
            seconds=entry.seconds,
            picture=_embedded(picture) if has_picture else "",
            quality=quality_in_words(bound.quality_of(entry)),
        )


def _embedded(picture: Path) -> str:
    return "data:image/webp;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def _drift_alarms(rows: Sequence[DriftRow]) -> list[str]:
    """Describe in sentences which measures of the newest studies drifted from the training."""
    return [
        f"Drift alarm: {row.feature} is {row.run:.4g} in {row.num_run} studies and "
        f"{row.training:.4g} in training."
        for row in rows
        if row.is_alarm
    ]
