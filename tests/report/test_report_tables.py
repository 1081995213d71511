"""Numbers of the page: the same as the summary's, ranked honestly, worst cases first."""

from __future__ import annotations

import pandas as pd
import pytest

from segmed.metrics import summarise
from segmed.report import Cost
from segmed.report.tables import (
    OVERALL,
    case_rows,
    comparison,
    count_text,
    scores_in_words,
    seconds_text,
    warnings_from,
)


def test_page_prints_the_numbers_of_the_summary(scores: dict[str, pd.DataFrame]) -> None:
    summary = summarise(scores["unetpp"]).set_index(["label", "metric"])
    block = next(b for b in comparison(scores, {}, None) if b.model == "unetpp")
    for row in block.rows:
        label = "mean" if row.label == OVERALL else row.label
        assert row.cells[0].text == f"{summary.loc[(label, 'dice'), 'mean']:.3f}"
        assert row.cells[4].spread == f"{summary.loc[(label, 'hd95_mm'), 'std']:.2f}"
        assert row.n == summary.loc[(label, "dice"), "n"]


def test_model_that_misses_ranks_last_whatever_its_other_cases(
    scores: dict[str, pd.DataFrame],
) -> None:
    blocks = comparison(scores, {}, None)
    assert [block.model for block in blocks] == ["unetpp", "unet"]
    assert blocks[1].rows[0].missed == 4
    assert not any(cell.is_best for row in blocks[1].rows for cell in row.cells)


def test_costs_that_are_not_known_are_left_out(scores: dict[str, pd.DataFrame]) -> None:
    known = {"unetpp": Cost(parameters=2_500_000, seconds_per_case=0.9)}
    best, other = comparison(scores, known, None)
    assert best.costs == (("parameters", "2.50 M"), ("per case", "0.90 s"))
    assert other.costs == ()


def test_models_without_misses_raise_no_warning(scores: dict[str, pd.DataFrame]) -> None:
    assert warnings_from({"unetpp": scores["unetpp"]}) == []


def test_invented_structure_is_warned_of(scores: dict[str, pd.DataFrame]) -> None:
    table = scores["unetpp"].copy()
    table.loc[0, "false_positive"] = True
    (warning,) = warnings_from({"unetpp": table})
    assert "1 of 1 places where the reference has none (anterior 1)" in warning


def test_what_the_caller_says_of_a_model_is_not_said_twice(
    scores: dict[str, pd.DataFrame],
) -> None:
    assert warnings_from(scores, ["unet missed 4 of 8 structures"]) == []


def test_caption_names_every_structure_and_what_was_missed(
    scores: dict[str, pd.DataFrame],
) -> None:
    assert scores_in_words(scores["unet"], "case-00") == "anterior missed; posterior missed"
    assert scores_in_words(scores["unet"], "case-01") == (
        "anterior Dice 1.000, HD95 0.00 mm; posterior Dice 1.000, HD95 0.00 mm"
    )


def test_worst_case_comes_first_and_the_missed_is_noted(scores: dict[str, pd.DataFrame]) -> None:
    columns, rows = case_rows(scores)
    dice = columns.index("dice")
    assert [row[dice] for row in rows] == sorted(row[dice] for row in rows)
    assert rows[0][columns.index("note")] == "missed"
    assert len(rows) == sum(len(table) for table in scores.values())


def test_row_that_is_empty_in_both_goes_last_without_a_number(
    scores: dict[str, pd.DataFrame],
) -> None:
    table = scores["unetpp"].copy()
    table.loc[0, "both_empty"] = True
    table.loc[0, ["dice", "iou", "f1", "hd_mm", "hd95_mm"]] = float("nan")
    columns, rows = case_rows({"unetpp": table})
    assert rows[-1][columns.index("dice")] is None
    assert "not scored" in rows[-1][-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.421, "0.42 s"), (83, "83 s"), (725, "12 min 5 s"), (11400, "3 h 10 min")],
)
def test_durations_are_readable(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_parameter_counts_are_readable() -> None:
    assert [count_text(n) for n in (None, 512, 812_300, 5_804_000)] == [
        "–",
        "512",
        "812 k",
        "5.80 M",
    ]
