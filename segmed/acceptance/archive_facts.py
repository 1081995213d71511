"""Facts of an archive for a dossier: outcomes by reason, drift of its last run, and cost."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from segmed.archive.drift import DriftRow, read_drift
from segmed.archive.ledger import Ledger
from segmed.archive.ledger.file import LEDGER_FILE


@dataclass(frozen=True)
class ArchiveFacts:
    """Outcomes of an archive that one model segmented.

    Attributes:
        counts: Studies by state.
        reasons: Refused and failed studies by reason code.
        seconds: Mean time of a segmented study, in s; None without any.
        drift: Features of the last run beside the training.
    """

    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    drift: tuple[DriftRow, ...] = ()

    @property
    def studies(self) -> int:
        """Studies that came to an end."""
        return sum(self.counts.get(state, 0) for state in ("done", "refused", "failed"))


def facts_of_archive(
    out_dir: Path, package: str, *, start: float = 0.0, end: float = math.inf
) -> ArchiveFacts:
    """Collect the facts of an archive.

    Args:
        out_dir: Output folder of the archive.
        package: Hash of the model; studies of other models do not count.
        start: First moment of the runs that count, in s since 1970.
        end: First moment after them.

    Raises:
        UsageError: There is no ledger.
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    seconds = 0.0
    with Ledger(out_dir / LEDGER_FILE, writer=False) as ledger:
        for entry in ledger.entries(package=package):
            if not start <= ledger.started(entry.worked) < end:
                continue
            counts[entry.state] += 1
            if entry.state in {"refused", "failed"}:
                reasons[entry.reason] += 1
            elif entry.state == "done":
                seconds += entry.seconds
    done = counts["done"]
    return ArchiveFacts(
        counts=dict(counts),
        reasons=dict(reasons.most_common()),
        seconds=seconds / done if done else None,
        drift=tuple(read_drift(out_dir)),
    )
