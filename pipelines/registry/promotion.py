"""Promotion by evidence: both models on the same cases, the gate, and the record."""

from __future__ import annotations

import getpass
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.registry.cache import converted_folder
from pipelines.registry.gate import DEFAULT_RULES, GateVerdict, judge, read_rules
from pipelines.registry.gate_cases import GateCases, gate_cases
from pipelines.registry.reference import (
    CHALLENGER,
    CHAMPION,
    Version,
    changes_of,
    contract,
    parse_reference,
)
from pipelines.registry.versions import Registry
from pipelines.tracking.delivery import translated
from pipelines.tracking.tags import DOUBT_TAG
from segmed.errors import UsageError
from segmed.evaluation import Evaluated, score_cases
from segmed.inference import Predictor
from segmed.manifest import Case, Manifest, data_hash, read_manifest
from segmed.metrics import write_table
from segmed.package import ModelPackage
from segmed.report import ReportContent, write_report


@dataclass(frozen=True)
class Decision:
    """Decision on a promotion.

    Attributes:
        promoted: Whether the version is champion now.
        name: Registered model.
        version: The version that wanted to be champion.
        champion: The version that was champion; None where there was none.
        verdict: What the gate said; None where nothing could be compared.
        doubt: Reason why the version's scores are no sign of learning; None where they are.
        forced: The reason for promoting against the gate.
        evaluation: Hash of the cases that decided.
        cases: Those cases, and what either model has seen; None where nothing could be compared.
        decided_by: Who.
        decided_at: When, UTC.
    """

    promoted: bool
    name: str
    version: str
    champion: str | None
    verdict: GateVerdict | None
    doubt: str | None
    forced: str | None
    evaluation: str | None
    cases: GateCases | None
    decided_by: str
    decided_at: str

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "promoted": self.promoted,
            "name": self.name,
            "version": self.version,
            "champion": self.champion,
            "gate_passed": self.verdict.passed if self.verdict else None,
            "cases": self.verdict.cases if self.verdict else 0,
            "evidence": self.verdict.rows() if self.verdict else [],
            "nothing_learned": self.doubt,
            "forced": self.forced,
            "evaluation": self.evaluation,
            **(self.cases.record() if self.cases else {}),
            "decided_by": self.decided_by,
            "decided_at": self.decided_at,
        }

    def lines(self) -> list[str]:
        """The evidence as an aligned table, the cases in sentences, the decision last."""
        rows = self.verdict.lines if self.verdict else ()
        cells = [("", "rule", "champion", "challenger", "improvement", "needed")] if rows else []
        cells += [
            (
                "pass" if row.passed else "FAIL",
                row.rule,
                f"{row.champion:.4g}",
                f"{row.challenger:.4g}",
                f"{row.improvement:+.4g}"
                + (f" (at least {row.bound:+.4g})" if row.bound is not None else "")
                + (f" (p {row.p_value:.3g})" if row.p_value is not None else ""),
                row.needed,
            )
            for row in rows
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(6)] if cells else []
        shown = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        against = f"version {self.champion}" if self.champion else "no champion"
        state = "promoted" if self.promoted else "refused"
        why = f", forced: {self.forced}" if self.forced else ""
        doubt = f"; nothing was learned: {self.doubt}" if self.doubt else ""
        return [
            *shown,
            *(self.cases.lines() if self.cases else ()),
            f"{self.name} version {self.version} {state} (against {against}{why}){doubt}",
        ]


def promote(
    reference: str,
    *,
    manifest: Path | None = None,
    rules: Path | None = None,
    force: str | None = None,
    folder: Path = Path(),
) -> Decision:
    """Make a version champion if the gate lets it through, or for a stated reason.

    Where there is no champion yet, any version passes that has learned something.

    Args:
        reference: `NAME@alias`, `NAME/3`, with or without `models:/`.
        manifest: Its test cases are the evaluation set.
        rules: YAML of the gate.
        force: Reason for promoting whatever the gate says.
        folder: Working folder, for the embedded registry.

    Raises:
        UsageError: The version is champion already, keeps another contract, or no evaluation set
            is given; `force` is empty.
    """
    if force is not None and not force.strip():
        raise UsageError("--force needs a reason, which is kept with the version")
    registry = Registry(folder)
    name, selector = parse_reference(reference, needs_scheme=False)
    challenger = registry.version(name, selector)
    champion = next((v for v in registry.versions(name) if CHAMPION in v.aliases), None)
    if champion is not None and champion.version == challenger.version:
        raise UsageError(f"version {challenger.version} of {name!r} is champion already")
    compared = _compare(registry, champion, challenger, manifest, rules, force)
    verdict = compared.verdict
    doubt = challenger.tags.get(DOUBT_TAG) if verdict is None else None
    passed = doubt is None and (champion is None or (verdict is not None and verdict.passed))
    decision = Decision(
        promoted=passed or force is not None,
        name=name,
        version=challenger.version,
        champion=champion.version if champion else None,
        verdict=verdict,
        doubt=doubt,
        forced=None if passed else force,
        evaluation=compared.evaluation,
        cases=compared.cases,
        decided_by=getpass.getuser(),
        decided_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if decision.promoted:
        registry.promote(name, challenger.version, expected_champion=decision.champion)
    _attach(registry, challenger, decision, compared.tables)
    return decision


@dataclass(frozen=True)
class _Comparison:
    """Comparison of challenger and champion; empty where there is nothing to compare.

    Attributes:
        verdict: Verdict of the gate.
        evaluation: Hash of the cases.
        cases: The cases.
        tables: Scores by alias.
    """

    verdict: GateVerdict | None = None
    evaluation: str | None = None
    cases: GateCases | None = None
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def _compare(
    registry: Registry,
    champion: Version | None,
    challenger: Version,
    manifest_path: Path | None,
    rules: Path | None,
    force: str | None,
) -> _Comparison:
    if champion is None:
        return _Comparison()
    versions = {CHAMPION: champion, CHALLENGER: challenger}
    packages = {who: registry.resolve(one.reference).load() for who, one in versions.items()}
    _require_same_contract(packages, champion, challenger)
    gate = read_rules(rules or DEFAULT_RULES)
    manifest_path = manifest_path or gate.evaluation
    if manifest_path is None:
        if force is not None:
            return _Comparison()
        raise UsageError(
            "the gate needs cases to compare on: give --manifest with labelled test cases, or "
            "write `evaluation: M.json` into the rules"
        )
    manifest = read_manifest(manifest_path)
    cases = gate_cases(manifest, packages)
    found = {who: _scores(packages[who], manifest, cases.cases) for who in packages}
    seconds = {who: evaluated.seconds_per_case for who, evaluated in found.items()}
    tables = {who: evaluated.table for who, evaluated in found.items()}
    verdict = judge(tables[CHAMPION], tables[CHALLENGER], gate, seconds_per_case=seconds)
    return _Comparison(verdict, data_hash(manifest, cases.cases), cases, tables)


def _require_same_contract(
    packages: Mapping[str, ModelPackage], champion: Version, challenger: Version
) -> None:
    before, now = (contract(packages[who].plan) for who in (CHAMPION, CHALLENGER))
    if changed := changes_of(before, now):
        raise UsageError(
            f"version {challenger.version} is another model than champion {champion.version}: its "
            f"{', '.join(changed)} differ; register it under another name"
        )


def _scores(package: ModelPackage, manifest: Manifest, cases: Sequence[Case]) -> Evaluated:
    with tempfile.TemporaryDirectory(prefix="segmed-gate-") as scratch:
        predictor = Predictor(package, cache_dir=converted_folder())
        return score_cases(predictor, manifest, cases, out_dir=Path(scratch))


def _attach(
    registry: Registry,
    version: Version,
    decision: Decision,
    tables: dict[str, pd.DataFrame],
) -> None:
    """Keep decision, table and report with the version; cases are named by number."""
    stamp = decision.decided_at.replace(":", "").replace("+0000", "Z")
    with tempfile.TemporaryDirectory(prefix="segmed-evidence-") as scratch:
        folder = Path(scratch)
        (folder / "decision.json").write_text(
            json.dumps(decision.record(), indent=2), encoding="utf-8"
        )
        if decision.verdict is not None:
            hidden = {who: _without_names(table) for who, table in tables.items()}
            for who, table in hidden.items():
                write_table(table, folder / f"{who}.csv")
            write_table(pd.DataFrame(decision.verdict.rows()), folder / "evidence.csv")
            write_report(folder / "report.html", _report(decision, hidden))
        place = f"promotions/{stamp}-version{version.version}"
        translated(
            registry.uri,
            lambda: registry.client.log_artifacts(version.run_id, str(folder), place),
        )
    state = "promoted" if decision.promoted else "refused"
    tags = {
        "segmed.decision": f"{state} at {decision.decided_at} by {decision.decided_by}",
        "segmed.evidence": place,
        "segmed.forced": decision.forced,
        "segmed.evaluation": decision.evaluation,
    }
    for key, value in tags.items():
        if value is not None:
            registry.set_version_tag(version, key, value)


def _report(decision: Decision, tables: dict[str, pd.DataFrame]) -> ReportContent:
    names = {
        CHAMPION: f"champion (version {decision.champion})",
        CHALLENGER: f"challenger (version {decision.version})",
    }
    lines = decision.lines()
    failed: Sequence[str] = [line for line in lines if line.startswith("FAIL")]
    return ReportContent(
        title=f"Promotion of {decision.name} version {decision.version}",
        subtitle=lines[-1],
        warnings=failed,
        sentences=lines,
        scores={names[who]: table for who, table in tables.items()},
        winner=names[CHALLENGER] if decision.promoted else names[CHAMPION],
    )


def _without_names(table: pd.DataFrame) -> pd.DataFrame:
    """Cases by their number in the evaluation set, which only the manifest resolves."""
    numbers = {case: f"case {i}" for i, case in enumerate(dict.fromkeys(table["case"]), 1)}
    return table.assign(case=table["case"].map(numbers))
