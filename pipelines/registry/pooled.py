"""Gate over the pooled records of several sites: paired scores without a single image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.registry.gate import DEFAULT_RULES, GateVerdict, judge, read_rules
from pipelines.registry.loading import resolve_model
from pipelines.registry.reference import CHALLENGER, CHAMPION
from segmed.acceptance.pool import AGAINST, MODEL, Pool, pool_records
from segmed.errors import UsageError
from segmed.metrics import summarise
from segmed.metrics.summary import RECORDED_METRICS

UNCHECKED = (
    "signers were not checked against a list: give --sites to take records of known sites alone"
)


@dataclass(frozen=True)
class PooledVerdict:
    """Verdict on pooled records.

    Attributes:
        pool: The records.
        summary: Pooled means with intervals and counts, one row a structure and metric.
        gate: Verdict of the gate; None without a model to compare with.
        findings: Records that report worse groups, shifts or drift.
    """

    pool: Pool
    summary: pd.DataFrame
    gate: GateVerdict | None
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """True if the gate lets the model through and no site reports a finding."""
        return (self.gate is None or self.gate.passed) and not self.findings

    def record(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        pool = self.pool
        return {
            "model": pool.model,
            "against": pool.against,
            "passed": self.passed,
            "cases": sum(site.cases for site in pool.sites),
            "patients": sum(site.patients for site in pool.sites),
            "sites": [asdict(site) for site in pool.sites],
            "signers_checked": pool.is_known,
            "findings": list(self.findings),
            "gate": None if self.gate is None else self.gate.rows(),
            "scores": self.summary.to_dict("records"),
        }


def judge_pool(
    paths: Sequence[Path],
    *,
    model: str | None = None,
    sites: Path | None = None,
    rules: Path | None = None,
) -> PooledVerdict:
    """Pool the records of several sites and apply the gate to them.

    Args:
        paths: The records.
        model: Reference of the model that they must be of.
        sites: File of known sites: the name of one a line; text behind it is a comment.
        rules: YAML of the gate.

    Raises:
        UsageError: A record is refused, see `segmed.acceptance.pool.pool_records`; or a file does
            not fit.
    """
    gate_rules = read_rules(rules or DEFAULT_RULES)
    wanted = None if model is None else resolve_model(model).hash
    pool = pool_records(paths, model=wanted, known=None if sites is None else read_sites(sites))
    verdict = None
    if AGAINST in pool.tables:
        tables = {CHALLENGER: pool.tables[MODEL], CHAMPION: pool.tables[AGAINST]}
        seconds = {
            CHALLENGER: pool.seconds.get(MODEL, 0.0),
            CHAMPION: pool.seconds.get(AGAINST, 0.0),
        }
        verdict = judge(tables[CHAMPION], tables[CHALLENGER], gate_rules, seconds_per_case=seconds)
    summary = summarise(pool.tables[MODEL])
    kept = summary[summary["metric"].isin(RECORDED_METRICS)].reset_index(drop=True)
    return PooledVerdict(pool, kept, verdict, tuple(_findings(pool)))


def _findings(pool: Pool) -> list[str]:
    found = []
    for site in pool.sites:
        counts: Mapping[str, int] = {
            "worse groups": site.groups,
            "shifts": site.shifts,
            "drifted features": site.drift or 0,
        }
        told = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
        if told:
            found.append(f"{site.file} (site {site.site}): {told}")
    return found


def read_sites(path: Path) -> list[str]:
    """Names of known sites from a file, one a line.

    Raises:
        UsageError: A line does not begin with the name of a site.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words[0]) != 16 or not set(words[0]) <= set("0123456789abcdef"):
            raise UsageError(
                f"{path} line {number}: {words[0]!r:.40} is not the name of a site, 16 hex digits "
                "as `segmed accept --export` prints them"
            )
        found.append(words[0])
    return found
