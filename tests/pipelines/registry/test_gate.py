"""The gate on scores that were made up, so that every verdict is known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.registry.card import MAX_CARD_LENGTH, card_of
from pipelines.registry.gate import GateRules, Rule, judge, read_rules
from pipelines.tracking.held_out import held_out_scores, keep_scores, metric_values
from segmed.errors import UsageError
from segmed.manifest import LabelClass
from segmed.metrics import METRICS
from segmed.package import ModelPackage
from segmed.plan import Plan

EQUAL_COST = {"champion": 1.0, "challenger": 1.0}


def scores(dice: list[float], *, hd95: float = 2.0, missed: int = 0) -> pd.DataFrame:
    rows = []
    for index, value in enumerate(dice):
        row = {metric.name: value for metric in METRICS}
        row |= {m.name: hd95 for m in METRICS if m.name.endswith("_mm")}
        flags = {"missed": index < missed, "false_positive": False, "both_empty": False}
        rows.append(
            {"case": f"case{index}", "label": "anterior", "is_region": False, **row, **flags}
            | {"substituted": index < missed}
        )
    return pd.DataFrame(rows)


def rules(test: str = "bootstrap", margin: float = 0.01) -> GateRules:
    return GateRules(rules=(Rule(metric="dice", margin=margin, test=test),))


BASE = list(np.linspace(0.80, 0.90, 10))


@pytest.mark.parametrize("test", ["bootstrap", "wilcoxon"])
@pytest.mark.parametrize(("gain", "passed"), [(0.02, True), (-0.005, True), (-0.03, False)])
def test_better_and_slightly_worse_pass_and_clearly_worse_fails(
    test: str, gain: float, passed: bool
) -> None:
    noise = np.tile([0.001, -0.001], 5)
    verdict = judge(
        scores(BASE),
        scores(list(np.array(BASE) + gain + noise)),
        rules(test),
        seconds_per_case=EQUAL_COST,
    )
    assert verdict.passed is passed


def test_better_mean_with_a_missed_structure_fails() -> None:
    verdict = judge(
        scores(BASE),
        scores([value + 0.05 for value in BASE], missed=1),
        rules(),
        seconds_per_case=EQUAL_COST,
    )
    failed = [line.rule for line in verdict.lines if not line.passed]
    assert failed == ["missed structures"]


def test_larger_distance_counts_as_worse() -> None:
    distance = GateRules(rules=(Rule(metric="hd95_mm", margin=1.0),))
    for hd95, passed in ((2.9, True), (3.5, False)):
        verdict = judge(
            scores(BASE), scores(BASE, hd95=hd95), distance, seconds_per_case=EQUAL_COST
        )
        assert verdict.passed is passed


def test_slow_challenger_fails() -> None:
    verdict = judge(
        scores(BASE), scores(BASE), rules(), seconds_per_case={"champion": 1.0, "challenger": 2.5}
    )
    assert [line.rule for line in verdict.lines if not line.passed] == ["seconds a case"]


def test_few_cases_decide_nothing() -> None:
    verdict = judge(scores(BASE[:3]), scores(BASE[:3]), rules(), seconds_per_case=EQUAL_COST)
    assert not verdict.passed
    assert not verdict.lines[0].passed


def test_uncertain_gain_over_few_cases_is_not_shown() -> None:
    wild = np.array([0.08, -0.09, 0.07, -0.08, 0.09, -0.09, 0.08, -0.08, 0.07, -0.07])
    verdict = judge(
        scores(BASE), scores(list(np.array(BASE) + wild)), rules(), seconds_per_case=EQUAL_COST
    )
    assert not verdict.passed


def test_default_rules_can_be_read() -> None:
    assert {rule.metric for rule in read_rules().rules} == {"dice", "hd95_mm"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: []", "field 'rules'"),
        ("rules: [{metric: dice, margin: -1}]", r"field 'rules\.0\.margin'"),
        ("rules: [{metric: dice, margin: 0, tests: x}]", r"field 'rules\.0\.tests'"),
        ("rules: [", "is not a YAML file"),
    ],
)
def test_wrong_rules_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_rules(path)


def test_unknown_metric_lists_the_known_ones() -> None:
    unknown = GateRules(rules=(Rule(metric="dise", margin=0.0),))
    with pytest.raises(UsageError, match="known are dice"):
        judge(scores(BASE), scores(BASE), unknown, seconds_per_case=EQUAL_COST)


def test_card_names_labels_scores_and_hash(plan: Plan) -> None:
    package = ModelPackage("unet", {}, plan, {}, {"data_licence": "CC-BY-SA 4.0"})
    text = card_of(package, held_out_scores(scores(BASE, missed=1)))
    assert "1 = anterior" in text
    assert "CC-BY-SA 4.0" in text
    assert "| anterior | 10 | 1 | 0 | 0.850 (" in text
    assert package.hash in text


def test_card_of_many_labels_fits_and_says_what_is_left_out(plan: Plan) -> None:
    labels = tuple(LabelClass(name=f"structure{i:03d}", value=i) for i in range(1, 100))
    rows = pd.concat([scores(BASE).assign(label=label.name) for label in labels])
    few = plan.model_copy(update={"labels": labels[:2]})
    text = card_of(ModelPackage("unet", {}, few, {}), held_out_scores(rows))
    assert len(text) <= MAX_CARD_LENGTH
    assert " more |" in text


def test_card_tells_failures_without_naming_a_case(plan: Plan) -> None:
    text = card_of(ModelPackage("unet", {}, plan, {}), held_out_scores(scores(BASE, missed=1)))
    assert "- anterior missed altogether" in text
    assert "- anterior: Dice 0.811, HD95 2.00 mm" in text
    assert "case0" not in text


def test_scores_kept_in_a_package_come_back_in_its_card(plan: Plan, tmp_path: Path) -> None:
    package = ModelPackage("unet", {}, plan, {"w": torch.zeros(1)})
    package.save(tmp_path / "package")
    kept = keep_scores(tmp_path / "package", held_out_scores(scores(BASE), [0]))
    again = ModelPackage.load(tmp_path / "package")
    assert again.hash == kept.hash == package.hash
    assert "| anterior | 10 | 0 | 0 | 0.850 (" in card_of(again)


def test_card_of_a_model_that_learned_nothing_says_so_above_its_use(plan: Plan) -> None:
    nothing = held_out_scores(scores([0.02] * len(BASE)))
    text = card_of(ModelPackage("unet", {}, plan, {}), nothing)
    assert 0 < text.index("Nothing was learned") < text.index("## Intended use")
    assert "Nothing was learned" not in card_of(
        ModelPackage("unet", {}, plan, {}), held_out_scores(scores(BASE))
    )


def test_card_of_images_without_a_spacing_has_pixels_and_no_volumes(plan: Plan) -> None:
    text = card_of(ModelPackage("unet", {}, plan, {}), held_out_scores(scores(BASE), unit="px"))
    assert "HD95 (px)" in text
    assert "2.00 px" in text
    assert " ml" not in text


@pytest.mark.parametrize("metric", ["f1", "hd_mm", "hd95_mm", "dice"])
def test_tracker_gets_each_metric_that_was_asked_for(metric: str) -> None:
    table = scores(BASE).assign(f1=0.5, hd_mm=4.0)
    names = dict(metric_values(held_out_scores(table)))
    assert f"val/{metric}/anterior" in names
