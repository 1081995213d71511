"""Summary of an archive run: a record, a few lines of text, and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segmed.archive.drift import DriftRow, drift_metrics

SHOWN = 25
"""Refusals and failures that a table or a notice lists; the rest is in `outcomes.json`."""


@dataclass(frozen=True)
class RunSummary:
    """One run of an archive.

    Attributes:
        counts: Studies by status, of all that the run met.
        fresh: Studies by status, of those that the run worked on.
        failures: Study and reason of those refused or failed in this run.
        num_failures: How many these are in all.
        drift: Rows of the drift watch, alarms first; empty when the model kept no norms or nothing
            was new.
        models: What was segmented with, as `model.json` has it.
        seconds: Time the run took, in s.
        num_remarked: Studies that this run segmented and whose input was odd in some way.
        quality: Promise about the unreviewed results, or why there is none; empty without one.
    """

    counts: Mapping[str, int]
    fresh: Mapping[str, int]
    failures: tuple[tuple[str, str], ...]
    num_failures: int
    drift: tuple[DriftRow, ...]
    models: tuple[Mapping[str, Any], ...]
    seconds: float
    num_remarked: int = 0
    quality: str = ""

    @property
    def alarms(self) -> tuple[DriftRow, ...]:
        """Rows that raise the drift alarm."""
        return tuple(row for row in self.drift if row.is_alarm)

    def headline(self) -> str:
        """The run in a few words, such as `12 done, 1 refused; drift alarm`."""
        parts = [f"{number} {status}" for status, number in sorted(self.fresh.items())]
        text = ", ".join(parts) or "nothing new"
        return f"{text}; drift alarm" if self.alarms else text

    def lines(self) -> list[str]:
        """The run in plain lines: counts, alarms, failures; no names of patients or files."""
        settled = sum(self.counts.values()) - sum(self.fresh.values())
        lines = [f"{self.headline()} in {self.seconds:.0f} s; {settled} were settled before"]
        lines += [f"model: {entry['model']} ({entry['hash'][:12]})" for entry in self.models]
        lines += [f"drift alarm: {describe_drift(row)}" for row in self.alarms]
        if self.quality:
            lines.append(f"predicted quality: {self.quality}")
        if self.num_remarked:
            lines.append(f"{self.num_remarked} with remarks on the input, see outcomes.json")
        lines += [f"study {study}: {reason}" for study, reason in self.failures]
        if self.num_failures > len(self.failures):
            lines.append(f"and {self.num_failures - len(self.failures)} more, see outcomes.json")
        return lines

    def metrics(self) -> dict[str, float]:
        """Metrics for a tracker: counts, seconds, and the drift watch's."""
        values = {f"studies/{status}": float(number) for status, number in self.fresh.items()}
        values["studies/met"] = float(sum(self.counts.values()))
        values["seconds"] = self.seconds
        return {**values, **(drift_metrics(self.drift) if self.drift else {})}


def describe_drift(row: DriftRow) -> str:
    """A row of the drift watch in words."""
    unit = "" if row.feature in {"flagged", "refused"} else " interquartile ranges"
    return (
        f"{row.feature}: {row.training:.4g} in training, {row.run:.4g} in {row.num_run} studies "
        f"({row.shift:+.2f}{unit}, p {row.p_value:.1e})"
    )


def summarise_run(record: Mapping[str, Any], seconds: float) -> RunSummary:
    """Summarise a record of `run_archive`."""
    outcomes: Sequence[Mapping[str, Any]] = record["outcomes"]
    fresh = [entry for entry in outcomes if entry["fresh"]]
    bad = [entry for entry in fresh if entry["status"] in {"refused", "failed"}]
    return RunSummary(
        counts=count(outcomes),
        fresh=count(fresh),
        failures=tuple((str(e["study"]), str(e["reason"])) for e in bad[:SHOWN]),
        num_failures=len(bad),
        drift=tuple(DriftRow(**row) for row in record["drift"]),
        models=tuple(record["models"]),
        seconds=seconds,
        quality=str(record.get("quality", "")),
        num_remarked=sum(bool(entry.get("notes")) for entry in fresh),
    )


def count(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Studies by status."""
    statuses = [str(entry["status"]) for entry in outcomes]
    return {status: statuses.count(status) for status in sorted(set(statuses))}
