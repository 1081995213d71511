"""Words of the page that a reader could take for something else."""

from __future__ import annotations

from segmed.acceptance.calibration import CalibrationRow
from segmed.acceptance.page import _drift, _intervals, _score_cells
from segmed.acceptance.shift import ScoreRow
from segmed.archive.drift import DriftRow


def row(number: int) -> DriftRow:
    return DriftRow("spacing_mm:0", 30, number, 1.0, 1.0, 0.0, 1.0, is_alarm=False)


def test_structure_without_an_interval_is_not_said_to_have_none_right() -> None:
    assert _intervals(CalibrationRow("a", 0, 0, 0.0, None)) == "a: no interval is stated"
    assert _intervals(CalibrationRow("a", 9, 8, 0.9, 0.0)) == (
        "a: 8 of 9 intervals contain the Dice (90% stated)"
    )


def test_too_few_cases_for_drift_are_said_to_be_so() -> None:
    assert "Fewer than 8 cases cannot show drift" in _drift("Drift", [row(7)]).note
    assert "cannot show" not in _drift("Drift", [row(8), row(7)]).note


def test_distances_have_their_unit() -> None:
    numbers = (0.8, 0.7, 0.9, 6, 0, 0, 0)
    assert _score_cells(ScoreRow("a", "hd95_mm", *numbers), "mm")[1] == "HD95 in mm"
    assert _score_cells(ScoreRow("a", "hd95_mm", *numbers), "pixels")[1] == "HD95 in pixels"
    assert _score_cells(ScoreRow("a", "dice", *numbers), "mm")[1] == "Dice"
