"""Comparison in which nothing was learned: a version at most, never champion or challenger."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.registry.gate import GateRules, Rule, judge
from pipelines.registry.reference import CHALLENGER, CHAMPION
from pipelines.registry.registration import register_winner
from pipelines.registry.versions import Registry
from pipelines.tracking.runs import comparison
from segmed.manifest import Manifest
from segmed.metrics import evaluate_case, scores_table
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.report.model_comparison import FoldResult, ModelComparison, compare_fold_results
from segmed.structures import LabelClass

LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2))


def held_out(shift: int) -> pd.DataFrame:
    """Scores of three cases whose structures are found `shift` voxels away from their place."""
    rows = []
    for number in range(3):
        label = np.zeros((24, 12, 8), np.uint8)
        label[3 : 9 + number, 2:5, 2:6], label[3 : 9 + number, 5:9, 2:6] = 1, 2
        rows += evaluate_case(
            np.roll(label, shift, axis=0), label,
            labels=LABELS, spacing_mm=(1.0, 1.0, 1.0), case_id=f"case{number}",
        )  # fmt: skip
    return scores_table(rows)


GOOD, BAD = held_out(1), held_out(12)


def comparison_of(
    table: pd.DataFrame, plan: Plan, folder: Path, value: float = 1.0
) -> ModelComparison:
    """A comparison won by a package that is only bytes."""
    package = ModelPackage("unet", {"widths": [4, 8]}, plan, {"weight": torch.full((4,), value)})
    return compare_fold_results(
        [FoldResult("unet", 0, table, [], package.save(folder / f"p{value}"))]
    )


def registered(compared: ModelComparison, manifest: Manifest, plan: Plan, folder: Path):
    with comparison("one model", manifest, plan, folder=folder) as parent:
        return register_winner(compared, compared.winning_package, "hippo", parent, folder=folder)


def test_first_version_that_learned_nothing_is_no_champion(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    version = registered(comparison_of(BAD, plan, working_folder), manifest, plan, working_folder)
    assert (version.version, version.aliases) == ("1", ())
    assert "below 0.1" in version.tags["segmed.nothing_learned"]
    useful = comparison_of(GOOD, plan, working_folder, 2.0)
    assert registered(useful, manifest, plan, working_folder).aliases == (CHAMPION,)


def test_version_that_learned_nothing_is_no_challenger_either(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    for value in (1.0, 2.0):
        compared = comparison_of(GOOD, plan, working_folder, value)
        registered(compared, manifest, plan, working_folder)
    worse = comparison_of(BAD, plan, working_folder, 3.0)
    assert registered(worse, manifest, plan, working_folder).aliases == ()
    found = {entry.version: entry.aliases for entry in Registry(working_folder).versions("hippo")}
    assert found == {"1": (CHAMPION,), "2": (CHALLENGER,), "3": ()}


def test_promotion_without_a_champion_is_refused_with_status_1_unless_forced(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    registered(comparison_of(BAD, plan, working_folder), manifest, plan, working_folder)
    refused = CliRunner().invoke(app, ["model", "promote", "hippo/1"])
    assert refused.exit_code == 1
    assert "hippo version 1 refused (against no champion)" in refused.output
    assert "nothing was learned: the mean Dice on held-out cases is 0.0" in refused.output
    forced = CliRunner().invoke(
        app, ["model", "promote", "hippo/1", "--force", "to try the schedule", "--json"]
    )
    assert forced.exit_code == 0, forced.output
    assert json.loads(forced.stdout)["forced"] == "to try the schedule"
    assert Registry(working_folder).version("hippo", CHAMPION).version == "1"


@pytest.mark.parametrize(("table", "passed"), [(BAD, False), (GOOD, True)])
def test_gate_stops_what_learned_nothing_whatever_the_champion_is_worth(
    table: pd.DataFrame, passed: bool
) -> None:
    rules = GateRules(min_cases=1, rules=(Rule(metric="dice", margin=0.01),))
    verdict = judge(table, table, rules, seconds_per_case={"champion": 1.0, "challenger": 1.0})
    assert verdict.passed is passed
    failed = [line.rule for line in verdict.lines if not line.passed]
    assert failed == ([] if passed else ["learned"])


def test_card_says_above_all_that_nothing_was_learned(
    working_folder: Path, manifest: Manifest, plan: Plan
) -> None:
    version = registered(comparison_of(BAD, plan, working_folder), manifest, plan, working_folder)
    assert version.description.index("Nothing was learned") < version.description.index("## ")
