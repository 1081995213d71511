"""Statements of the report that must be true: units, one case, and trainings without result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_sample import LABELS, block, scored

from segmed.metrics import compare_models
from segmed.pictures.legend import Legend
from segmed.report import OverlayItem, ReportContent
from segmed.report.model_comparison import (
    FoldResult,
    ModelComparison,
    compare_fold_results,
    comparison_record,
)
from segmed.report.page import render

NAMES = {label.value: label.name for label in LABELS}


def fold_result(name: str, table: pd.DataFrame) -> FoldResult:
    return FoldResult(name, 0, table, [], Path())


def compared_models(*shifts: list[int | None], unit: str = "mm") -> ModelComparison:
    tables = [scored(each) for each in shifts]
    entries = [fold_result(f"net{n}", table) for n, table in enumerate(tables)]
    return compare_fold_results(entries, unit=unit)


@pytest.mark.parametrize("shifts", [[[0], [2]], [[1], [None]], [[1], [1]]])
def test_one_case_has_neither_bootstrap_nor_interval_nor_test_in_its_sentences(
    shifts: list[list[int | None]],
) -> None:
    tables = {f"net{n}": scored(each) for n, each in enumerate(shifts)}
    text = " ".join(compare_models(tables).sentences)
    assert "n = 1" in text
    assert "bootstrap" not in text
    assert "signed-rank" not in text


def test_two_cases_keep_their_bootstrap_sentence() -> None:
    tables = {"a": scored([0, 1]), "b": scored([2, 2])}
    assert "bootstrap samples" in " ".join(compare_models(tables).sentences)


def test_images_without_a_spacing_are_reported_in_pixels() -> None:
    found = compared_models([0, 1], [1, 2], unit="px")
    assert found.result is not None
    assert all(" mm" not in sentence for sentence in found.result.sentences)
    assert comparison_record(found)["unit"] == "px"
    flat = OverlayItem(
        np.zeros((3, 30, 30)), None, np.ones((30, 30), int), (1.0, 1.0), "eye",
        case="case-00", model="net0", legend=Legend(NAMES, "px"),
    )  # fmt: skip
    page = render(
        ReportContent("2D", scores=found.tables, overlays=[flat], legend=Legend(NAMES, "px"))
    )
    assert "HD95 px" in page
    visible = page[page.index("<main") : page.index('id="case-data"')]
    assert " mm" not in visible
    assert ">mm<" not in visible
    assert "patient's right" not in page


def test_volume_with_sides_says_where_the_right_is() -> None:
    item = OverlayItem(
        np.zeros(block().shape), None, block(), (1.0, 1.0, 2.0), "brain", orientation="LPS"
    )
    assert "patient's right is on the left" in render(ReportContent("3D", overlays=[item]))
    unknown = replace(item, orientation="")
    assert "patient's right" not in render(ReportContent("3D", overlays=[unknown]))


@pytest.mark.parametrize("shifts", [[[None, None]], [[None, None], [None, 7]]])
def test_comparison_in_which_nothing_was_learned_says_so_first(
    shifts: list[list[int | None]],
) -> None:
    found = compared_models(*shifts)
    assert "learned" in found.warnings[0]
    assert found.winner in found.warnings[0]
    assert comparison_record(found)["warnings"][0] == found.warnings[0]


def test_comparison_with_a_useful_winner_has_no_such_warning() -> None:
    assert not any("learned" in text for text in compared_models([0, 1], [None, None]).warnings)


def test_every_case_shown_is_in_the_viewer_and_has_the_colours_of_the_key() -> None:
    items = [
        OverlayItem(
            np.zeros(block().shape), block(), block(1), (1.0, 1.0, 2.0), f"case {n}",
            "RAS", viewer=True, legend=Legend(NAMES),
        )
        for n in range(3)
    ]  # fmt: skip
    page = render(ReportContent("3D", overlays=items, legend=Legend(NAMES)))
    assert page.count('class="view3d"') == 3
    for value, name in NAMES.items():
        colour = "#{:02x}{:02x}{:02x}".format(*Legend(NAMES).colour(value))
        assert f'style="background:{colour}"></i>{name}' in page


def test_comparison_has_one_line_and_a_picture() -> None:
    compared = compared_models([0, 0], [1, 1])
    line = repr(compared)
    assert line.startswith(f"ModelComparison({compared.winner} ranks first; mean Dice ")
    assert all(name in line for name in compared.tables)
    assert compared._repr_png_().startswith(b"\x89PNG")
    assert repr(compared.fold_results[0]).startswith("FoldResult(")
    assert repr(compared.result).startswith(f"Comparison({compared.winner}, ")
    assert not any("\n" in text for text in (line, repr(compared.result)))
