"""`outcomes.json`: how every study of the last run ended, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segmed.archive.ledger import Entry, Ledger, State
from segmed.archive.study import StudyOutcome, StudyStatus
from segmed.io.atomic import whole_file

OUTCOMES_FILE = "outcomes.json"

STATUS: dict[State, StudyStatus] = {
    "done": "done",
    "refused": "refused",
    "failed": "failed",
    "pending": "pending",
    "running": "pending",
    "replaced": "pending",
}


SHARED = "{} files have the same bytes: they share this output"
KEPT = "the result of an earlier state of this input is kept, flagged as outdated"


def outcome_in(ledger: Ledger, key: str, run: int, *, fresh: bool) -> StudyOutcome:
    """The outcome of a key in one run, with remarks on copies and earlier results.

    Args:
        ledger: The ledger.
        key: The key.
        run: Number of the run.
        fresh: Whether this run worked on it.
    """
    entry = ledger.entry(key)
    notes = []
    if entry.state == "done" and (places := ledger.num_places(key, run)) > 1:
        notes.append(SHARED.format(places))
    if entry.state == "refused" and ledger.outdated(by=key):
        notes.append(KEPT)
    return outcome_of(entry, fresh=fresh, more=notes)


def outcome_of(entry: Entry, *, fresh: bool, more: Sequence[str] = ()) -> StudyOutcome:
    """The outcome of an entry of the ledger.

    Args:
        entry: The entry.
        fresh: Whether this run worked on it.
        more: Remarks besides those on its input.
    """
    done = entry.state == "done"
    notes = entry.measures.get("notes", ()) if done else ()
    return StudyOutcome(
        key=entry.key,
        study=entry.study,
        status=STATUS[entry.state],
        reason=f"{entry.reason}: {entry.message}" if entry.reason else "",
        output=entry.output if done else None,
        form=entry.form,
        seconds=entry.seconds,
        package=entry.package,
        fresh=fresh,
        notes=(*notes, *more),
    )


def write_outcomes(
    ledger: Ledger,
    run: int,
    path: Path,
    quality_of: Callable[[Entry], dict[str, Any] | None] = lambda _: None,
) -> Path:
    """Write what became of the studies that a run met, one at a time.

    Outputs may be named like their inputs, so the file is readable to its owner alone; the places
    of the inputs are in the ledger and in `index.csv`. Studies of one content count once for each
    place, and say so. The list is in the order of the places.

    Args:
        ledger: The ledger.
        run: Number of the run.
        path: The JSON file.
        quality_of: Predicted quality of a result, if any.

    Returns:
        The file.
    """
    with whole_file(path, private=True) as draft, draft.open("w", encoding="utf-8") as stream:
        separator = "[\n"
        for _, entry in ledger.met(run):
            outcome = outcome_in(ledger, entry.key, run, fresh=True)
            quality = quality_of(entry) if outcome.status == "done" else None
            stated = {} if quality is None else {"quality": quality}
            stream.write(separator + json.dumps(record(outcome) | stated))
            separator = ",\n"
        stream.write("[]\n" if separator == "[\n" else "\n]\n")
    return path


def record(outcome: StudyOutcome) -> dict[str, Any]:
    """An outcome as JSON values."""
    return {
        "key": outcome.key,
        "study": outcome.study,
        "form": outcome.form,
        "status": outcome.status,
        "reason": outcome.reason,
        "output": outcome.output,
        "seconds": round(outcome.seconds, 4),
        "package": outcome.package,
        "notes": list(outcome.notes),
    }
