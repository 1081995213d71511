"""Recorded out-of-fold cases of real sets keep what is promised; see `bench_quality --record`."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from segmed.quality.fitting import QualityCase
from segmed.quality.risk import RiskTarget
from segmed.quality.risk_coverage import risk_coverage

REPOSITORY = Path(__file__).resolve().parents[2]
HIPPOCAMPUS = Path(__file__).with_name("hippocampus_cases.json")


@pytest.fixture(scope="module")
def splits() -> ModuleType:
    """The module of the benchmark, which lies beside the tests."""
    if str(REPOSITORY) not in sys.path:
        sys.path.insert(0, str(REPOSITORY))
    return importlib.import_module("tests.benchmarks.quality_splits")


@pytest.mark.parametrize("name", ["hippocampus", "left_atrium", "cardiac_mr"])
def test_promises_are_kept_on_a_recorded_set(splits: ModuleType, name: str) -> None:
    """Coverage, risk, and no significant loss of AURC against a feature alone, over patients."""
    recorded = REPOSITORY / "tests" / "benchmarks" / "results" / "quality" / f"{name}.json"
    path = HIPPOCAMPUS if name == "hippocampus" else recorded
    if not path.is_file():
        pytest.skip(f"no recorded cases of {name}: python -m tests.benchmarks.bench_quality "
                    f"--record {name} makes them")  # fmt: skip
    for table, record in splits.judged(splits.read_recorded(path), 60).items():
        assert all(row["is_kept"] for row in record["coverage"].values()), table
        assert record["risk"]["is_kept"], table
        against = record["aurc"]["against"]
        assert against.keys() == {"entropy", *(["pairwise_dice"] if "one" not in table else [])}
        assert all(row["is_as_good"] for row in against.values()), (table, against)


def halved(cases: tuple[QualityCase, ...]) -> list[QualityCase]:
    """Two cases a patient."""
    return [replace(case, group=str(place // 2)) for place, case in enumerate(cases)]


def test_splits_divide_patients_and_a_level_is_one_that_can_be_stated(splits: ModuleType) -> None:
    cases = halved(splits.read_recorded(HIPPOCAMPUS)["one_network"])
    for split in splits.make_splits(cases, 5):
        new = {case.group for case in split.new}
        assert len(new) == 20  # of 80 patients
        assert len(split.new) == 40
        assert split.model.fitted + split.model.calibrated == 60
    assert splits.level_of(splits.make_splits(cases, 3)) == 0.9
    few = splits.make_splits(cases[:30], 3)  # fifteen patients, of whom five calibrate
    assert [split.model.calibrated for split in few] == [5, 5, 5]
    assert splits.level_of(few) == 0.8
    found = splits.coverage(few, 0.8, 15)
    assert all(row["splits"] == 3 for row in found.values())


def test_a_score_that_is_too_sure_is_found(splits: ModuleType) -> None:
    """Errors of the calibration halved: the coverage falls by more than its error."""
    cases = splits.read_recorded(HIPPOCAMPUS)["one_network"]
    made = splits.make_splits(cases, 20)
    sure = [
        replace(
            split,
            model=split.model.model_copy(
                update={
                    "structures": tuple(
                        item.model_copy(
                            update={"dice_errors": tuple(e / 2 for e in item.dice_errors)}
                        )
                        for item in split.model.structures
                    )
                }
            ),
        )
        for split in made
    ]
    assert all(row["is_kept"] for row in splits.coverage(made, 0.9, 160).values())
    assert not splits.coverage(sure, 0.9, 160)["dice anterior"]["is_kept"]
    promised = [replace(split, model=split.model.model_copy(update={"lowest_dice": (1.0,) * 60}))
                for split in made]  # fmt: skip
    hard = RiskTarget(review=0.2, risk=0.12, dice=0.85, confidence=0.8)
    assert splits.risk(made, hard)["is_kept"]
    assert not splits.risk(promised, hard)["is_kept"]


def test_area_of_counted_cases_is_that_of_repeated_ones(splits: ModuleType) -> None:
    aurc = importlib.import_module("tests.benchmarks.quality_aurc")
    rng = np.random.default_rng(0)
    for number in (1, 2, 7, 30):
        confidence = np.round(rng.normal(size=number), 1)  # some are equal
        risk = rng.random(number)
        counts = rng.multinomial(number, np.full(number, 1.0 / number), 20)
        found = aurc.counted_areas(confidence, risk, counts)
        for row, area in zip(counts, found, strict=True):
            repeated = np.repeat(np.arange(number), row)
            assert area == pytest.approx(risk_coverage(confidence[repeated], risk[repeated]).aurc)


def test_a_score_that_orders_worse_is_found_and_a_better_one_is_not(splits: ModuleType) -> None:
    aurc = importlib.import_module("tests.benchmarks.quality_aurc")
    made = splits.make_splits(splits.read_recorded(HIPPOCAMPUS)["three_networks"], 20)
    found = {
        name: aurc.drawn_areas(made, score, 200)
        for name, score in {
            "right": lambda _, case: case.lowest_dice,
            "agreement": lambda _, case: aurc._lowest(case, "agreement"),
            "reversed": lambda _, case: -aurc._lowest(case, "agreement"),
        }.items()
    }
    zeros = np.zeros(1)
    worse = aurc._against(zeros + 0.01, found["reversed"] - found["agreement"])
    better = aurc._against(zeros - 0.01, found["right"] - found["agreement"])
    assert not worse["is_as_good"]
    assert better["is_as_good"]
    assert better["high"] < 0 < worse["low"]
