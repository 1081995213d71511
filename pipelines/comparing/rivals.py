"""The winner of a comparison against existing models, case by case, by the rules of the gate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipelines.comparing.jobs import Request
from pipelines.comparing.progress import progress
from pipelines.registry.gate import GateVerdict, judge, read_rules
from pipelines.registry.loading import resolve_model
from segmed.errors import UsageError
from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.inference.engine import resolve_device
from segmed.inference.vocabulary import EngineName
from segmed.io.atomic import write_whole
from segmed.manifest import Manifest, data_hash
from segmed.metrics import ModelCost, compare_models, read_table, write_table
from segmed.nnunet import package_of
from segmed.package import CARD_FILE, ModelPackage
from segmed.package.training_cases import unseen_cases
from segmed.plan.agreement import channel_order, require_known_labels
from segmed.report.content import ReportTable
from segmed.report.model_comparison import ModelComparison

FOLDER = "with"
"""Folder of a comparison with the scores of existing models."""

COLUMNS = ("Model", "Rule", "It", "Winner", "Improvement", "Needed", "Result")


@dataclass(frozen=True)
class Rival:
    """An existing model that a comparison is held against.

    Attributes:
        name: As it was named.
        package: Its package.
    """

    name: str
    package: ModelPackage

    @property
    def is_of_unknown_cases(self) -> bool:
        """Return whether the cases that it was trained on are unknown."""
        made = self.package.provenance
        return not any("data_hash" in training for training in (made, *made.get("members", ())))


def rivals_of(request: Request, manifest: Manifest) -> list[Rival]:
    """The models that a request names, checked against the image set.

    Raises:
        UsageError: One names nothing, has other labels or channels, or was trained on a case that
            the comparison holds out.
        PackageError: One is damaged, or is an nnU-Net that cannot be imported.
    """
    found = [Rival(name, _package(name)) for name in request.against]
    for rival in found:
        try:
            plan = rival.package.plan
            require_known_labels(plan, manifest)
            channel_order([channel.name for channel in plan.channels], manifest)
            for fold in request.folds:
                unseen_cases([rival.package], manifest, cases=manifest.split(fold)[1])
        except UsageError as error:
            raise UsageError(f"--with {rival.name}: {error}") from error
    return found


def _package(name: str) -> ModelPackage:
    """A registered model, a package, or the model of nnU-Net results."""
    place = Path(name)
    if place.is_dir() and not (place / CARD_FILE).is_file():
        return package_of(place)
    return resolve_model(name).load()


def judge_rivals(
    compared: ModelComparison, manifest: Manifest, request: Request
) -> list[dict[str, Any]]:
    """The winner against each of the models that a request names.

    Args:
        compared: The comparison.
        manifest: The image set.
        request: Names the models and the folder that keeps their scores.

    Returns:
        For each model its verdict, lines of evidence and sentences, as plain values.
    """
    return [_judged(rival, compared, manifest, request) for rival in rivals_of(request, manifest)]


def _judged(
    rival: Rival, compared: ModelComparison, manifest: Manifest, request: Request
) -> dict[str, Any]:
    winner = compared.winner
    folds = [entry.fold for entry in compared.fold_results if entry.architecture == winner]
    scored = [_scores(rival, manifest, fold, request) for fold in folds]
    table = pd.concat([one for one, _ in scored], ignore_index=True)
    seconds = float(np.mean([spent for _, spent in scored]))
    own_seconds = compared.costs[winner].seconds_per_case or 0.0
    verdict = judge(
        table,
        compared.tables[winner],
        read_rules(),
        seconds_per_case={"champion": seconds, "challenger": own_seconds},
    )
    parameters = sum(int(np.prod(tensor.shape)) for tensor in rival.package.state.values())
    pair = compare_models(
        {winner: compared.tables[winner], rival.name: table},
        costs={
            winner: compared.costs[winner],
            rival.name: ModelCost(parameters=parameters, seconds_per_case=seconds),
        },
        unit=compared.unit,
    )
    return {
        "model": rival.name,
        "hash": rival.package.hash,
        "winner": winner,
        "passed": verdict.passed,
        "cases": verdict.cases,
        "seconds_per_case": round(seconds, 3),
        "lines": verdict.rows(),
        "sentences": [_verdict_in_words(rival, winner, verdict), *pair.sentences],
        "warnings": list(pair.warnings),
    }


def _verdict_in_words(rival: Rival, winner: str, verdict: GateVerdict) -> str:
    failed = [line.rule for line in verdict.lines if not line.passed]
    state = "passes" if verdict.passed else f"does not pass ({', '.join(failed)})"
    seen = (
        "; it is not known which cases that model was trained on: if these are among them, its "
        "scores flatter it"
        if rival.is_of_unknown_cases
        else ""
    )
    return (
        f"{winner} {state} the gate against {rival.name} on the {verdict.cases} held-out cases"
        f"{seen}"
    )


def _scores(
    rival: Rival, manifest: Manifest, fold: int, request: Request
) -> tuple[pd.DataFrame, float]:
    """Scores on a fold's cases, and seconds a case; those of an earlier call are kept."""
    cases = manifest.split(fold)[1]
    place = request.out_dir / FOLDER / rival.package.hash[:16] / f"fold{fold}"
    identity = {"hash": rival.package.hash, "data_hash": data_hash(manifest, cases)}
    record = place / "scored.json"
    if request.settings.resume and record.is_file():
        kept = json.loads(record.read_text(encoding="utf-8"))
        if kept.get("identity") == identity:
            return read_table(place / "scores.parquet"), float(kept["seconds_per_case"])
    device = resolve_device(request.settings.device)
    # As the trained networks are scored, so that times compare.
    engine: EngineName = "torch" if device.type == "cpu" else "auto"

    def scored(done: int, total: int) -> None:
        progress.info("%s fold %d: scored %d of %d cases", rival.name, fold, done, total)

    evaluated = score_cases(
        Predictor(rival.package, device=str(device), engine=engine),
        manifest,
        cases,
        out_dir=place / "predictions",
        progress=scored,
    )
    write_table(evaluated.table, place / "scores.parquet")
    content = {"identity": identity, "seconds_per_case": evaluated.seconds_per_case}
    write_whole(record, json.dumps(content, indent=2))
    return evaluated.table, evaluated.seconds_per_case


def rivals_table(judged: Sequence[Mapping[str, Any]]) -> list[ReportTable]:
    """The lines of evidence, for the report; nothing without such models."""
    rows = [
        (
            str(entry["model"]),
            str(line["rule"]),
            f"{line['champion']:.4g}",
            f"{line['challenger']:.4g}",
            f"{line['improvement']:+.4g}",
            str(line["needed"]),
            "pass" if line["passed"] else "FAIL",
        )
        for entry in judged
        for line in entry["lines"]
    ]
    if not rows:
        return []
    note = "It is the existing model; scores and times are of the same held-out cases."
    return [ReportTable("The winner against existing models", note, COLUMNS, rows)]
