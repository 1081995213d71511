"""`segmed accept --pool`: records of several sites, put together for the gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipelines.cli.arguments import require_file, require_models
from pipelines.terminal.console import DONE_WITH_FAILURES, emit, note, table
from segmed.errors import UsageError

if TYPE_CHECKING:
    from pipelines.registry.pooled import PooledVerdict

SHOWN = ("dice", "hd95_mm", "nsd")


def pool(
    records: Sequence[str],
    *,
    model: str | None,
    sites: Path | None,
    rules: Path | None,
    as_json: bool,
) -> None:
    """Pool records and print the verdict; status 1 where the gate refuses the model."""
    for record in records:
        if not Path(record).is_file():
            raise UsageError(
                f"{record}: there is no such record; `segmed accept MODEL --cases LOCAL.json "
                "--export FILE` writes one at each site"
            )
    require_file(sites, "--sites")
    require_file(rules, "--rules")
    if model is not None:
        require_models([model])
    from pipelines.registry.pooled import UNCHECKED, judge_pool

    found = judge_pool([Path(one) for one in records], model=model, sites=sites, rules=rules)
    if not found.pool.is_known:
        note(f"segmed: {UNCHECKED}")
    emit(found.record(), list(lines_of(found)), as_json=as_json)
    if not found.passed:
        raise typer.Exit(DONE_WITH_FAILURES)


def lines_of(found: PooledVerdict) -> list[str]:
    """The verdict as lines: sites, scores, the gate, findings."""
    sites = [
        {
            "record": site.file,
            "site": site.site,
            "cases": site.cases,
            "patients": site.patients,
            "refused": site.refused,
            "worse groups": site.groups,
            "shifts": site.shifts,
            "drifted": "not known" if site.drift is None else site.drift,
        }
        for site in found.pool.sites
    ]
    shown = found.summary[found.summary["metric"].isin(SHOWN)]
    columns = ["label", "metric", "mean", "ci_low", "ci_high", "n", "n_missed", "n_false_positive"]
    rows = [{str(key): value for key, value in row.items()} for row in shown.to_dict("records")]
    lines = [*table(sites, list(sites[0])), *table(rows, columns)]
    if found.gate is None:
        lines.append("no gate: the records compare with no other model (--against)")
    else:
        lines += [
            f"{'pass' if line.passed else 'FAIL'}  {line.rule}: improvement "
            f"{line.improvement:+.4g}, needed: {line.needed}"
            for line in found.gate.lines
        ]
    lines += [f"finding: {text}" for text in found.findings]
    return [*lines, "passed" if found.passed else "not passed"]
