"""Look at a ledger, and retry its refused and failed studies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segmed.archive.ledger import Ledger, State
from segmed.archive.ledger.file import LEDGER_FILE
from segmed.archive.outcomes import outcome_of
from segmed.archive.study import StudyOutcome


@dataclass(frozen=True)
class ArchiveStatus:
    """Status of an archive.

    Attributes:
        counts: Studies in each state.
        refused_and_failed: Outcomes of the refused and failed studies.
        files_in_studies: Files that the last run met in studies.
        files_without_image: Files of the last run without an image.
    """

    counts: dict[State, int]
    refused_and_failed: tuple[StudyOutcome, ...]
    files_in_studies: int
    files_without_image: int


def archive_status(out_dir: Path) -> ArchiveStatus:
    """Return the status of an archive by its output folder, also during a run.

    Raises:
        UsageError: There is no ledger.
    """
    with Ledger(out_dir / LEDGER_FILE, writer=False) as ledger:
        run = ledger.last_run()
        files, others = (0, 0) if run is None else ledger.files_met(run)
        bad = [
            outcome_of(entry, fresh=False)
            for state in ("refused", "failed")
            for entry in ledger.entries(state=state)
        ]
        return ArchiveStatus(ledger.counts(), tuple(bad), files, others)


def retry_archive(out_dir: Path) -> int:
    """Let the next run try refused and failed studies again; returns how many there are.

    Raises:
        UsageError: There is no ledger, or a run is going on.
    """
    with Ledger(out_dir / LEDGER_FILE, writer=False):
        pass  # a folder without a ledger gets none from a retry
    with Ledger(out_dir / LEDGER_FILE) as ledger:
        return ledger.reopen_all(("refused", "failed"))


def places_of(out_dir: Path, study: str) -> tuple[str, ...]:
    """Return the paths of a study's input, relative to the archive; they may name patients.

    Args:
        out_dir: The output folder.
        study: The study's name, as in `outcomes.json`.
    """
    with Ledger(out_dir / LEDGER_FILE, writer=False) as ledger:
        return tuple(
            place
            for entry in ledger.entries()
            if entry.study == study
            for place in ledger.places(entry.key)
        )
