"""Criteria: read, checked by name, applied; and the rule by which texts may be shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.registry.acceptance import DEFAULT_CRITERIA
from segmed.acceptance.criteria import (
    MEASURES,
    NOT_MEASURED,
    Criterion,
    apply,
    read_criteria,
    require_known_structures,
)
from segmed.acceptance.facts import decade_of, shown_values
from segmed.acceptance.groups import compare_groups
from segmed.errors import UsageError

REPOSITORY = Path(__file__).resolve().parents[2]


def written(folder: Path, text: str) -> Path:
    path = folder / "criteria.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_default_criteria_are_valid() -> None:
    assert {one.measure for one in read_criteria(DEFAULT_CRITERIA).accept} <= set(MEASURES)


def test_page_lists_every_measure() -> None:
    page = (REPOSITORY / "docs" / "accept.md").read_text(encoding="utf-8")
    assert not [name for name in MEASURES if f"`{name.removesuffix('_loss')}" not in page]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("accept: [{measure: dise, at_least: 1}]", "unknown measure 'dise'"),
        ("accept: [{measure: dice}]", "give one of at_least and at_most"),
        ("accept: [{measure: dice, at_least: 1, at_most: 1}]", "give one of at_least"),
        ("accept: [{measure: cases, of: anterior, at_least: 1}]", "of the whole site"),
        ("accept: []", "accept"),
        ("accept: [{measure: dice, at_least: 0.8, margin: 2}]", "margin"),
        ("stop: []", "accept"),
        ("accept: [{measure: dice, at_least: .nan}]", "at_least"),
        ("accept: [", "not a YAML file"),
        ("accept: [{measure: cases, at_least: 1}]\nbound: {dice: 2}", "dice"),
    ],
)
def test_wrong_criteria_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        read_criteria(written(tmp_path, text))


def test_missing_file_and_foreign_structure_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file of criteria"):
        read_criteria(tmp_path / "absent.yaml")
    found = read_criteria(written(tmp_path, "accept: [{measure: dice, of: liver, at_least: 0.8}]"))
    with pytest.raises(UsageError, match=r"liver.*anterior"):
        require_known_structures(found, ["anterior"])


def test_each_structure_has_a_line_and_a_value_not_known_fails() -> None:
    facts = {("dice", "a"): 0.9, ("dice", "b"): 0.7, ("dice", "mean"): 0.8, ("cases", ""): 3.0}
    each = apply([Criterion(measure="dice", of="each", at_least=0.8)], facts)
    assert [(line.of, line.is_fulfilled) for line in each] == [("a", True), ("b", False)]
    (absent,) = apply([Criterion(measure="drift", at_most=0)], facts)
    assert not absent.is_fulfilled
    assert absent.sentence == f"drift: {NOT_MEASURED}, needed at most 0"
    (cases,) = apply([Criterion(measure="cases", at_most=3)], facts)
    assert cases.is_fulfilled


def test_value_of_few_patients_is_never_shown() -> None:
    values = {f"c{i}": {"protocol": "T1 for Jane" if i < 4 else "T1"} for i in range(12)}
    patients = {case: case for case in values}
    shown = {found["protocol"] for found in shown_values(values, patients).values()}
    assert shown == {"T1", "values of fewer than 5 patients"}
    one_patient = dict.fromkeys(values, "same")
    shown = {found["protocol"] for found in shown_values(values, one_patient).values()}
    assert shown == {"values of fewer than 5 patients"}


@pytest.mark.parametrize(
    ("age", "decade"),
    [(0.2, "0 to 9"), (59.99, "50 to 59"), (60, "60 to 69"), (101, "90 and older")],
)
def test_age_is_shown_by_decade_and_the_oldest_are_one(age: float, decade: str) -> None:
    assert decade_of(age) == decade


def scores(dice: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case": list(dice),
            "label": "anterior",
            "is_region": False,
            "dice": list(dice.values()),
            "both_empty": False,
        }
    )


def test_group_is_worse_only_beyond_the_margin_and_with_enough_cases() -> None:
    rng = np.random.default_rng(0)
    dice = {f"c{i}": 0.9 + 0.01 * rng.normal() for i in range(40)}
    groups = {case: {"sex": "female" if i < 10 else "male"} for i, case in enumerate(dice)}

    def worse(loss: float, number: int) -> list[str]:
        changed = {
            case: value - (loss if i < number else 0)
            for i, (case, value) in enumerate(dice.items())
        }
        return [row.value for row in compare_groups(scores(changed), groups) if row.is_worse]

    assert worse(0.1, 10) == ["female"]
    assert worse(0.03, 10) == []  # sure, and too small to matter
    few = {case: {"sex": "female" if i < 4 else "male"} for i, case in enumerate(dice)}
    rows = compare_groups(
        scores({c: v - 0.3 * (i < 4) for i, (c, v) in enumerate(dice.items())}), few
    )
    assert [row.p_value for row in rows] == [None, None]


def test_more_comparisons_cost_more_by_holm() -> None:
    rng = np.random.default_rng(1)
    dice = {f"c{i}": 0.9 - 0.06 * (i < 8) + 0.03 * rng.normal() for i in range(40)}
    alone = {case: {"sex": "female" if i < 8 else "male"} for i, case in enumerate(dice)}
    more = {
        case: {**alone[case], "scanner": f"S{i % 4}", "age decade": f"{i % 5}0 to {i % 5}9"}
        for i, case in enumerate(dice)
    }
    (one,) = (r for r in compare_groups(scores(dice), alone) if r.value == "female")
    (same,) = (r for r in compare_groups(scores(dice), more) if r.value == "female")
    assert one.p_value == same.p_value
    assert one.p_holm == pytest.approx(2 * one.p_value)
    assert same.p_holm == pytest.approx(11 * one.p_value)
