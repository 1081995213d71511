"""Tables, their summary, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from segmed.errors import MetricError
from segmed.metrics import (
    METRICS,
    evaluate_case,
    read_table,
    scores_table,
    summarise,
    write_table,
)
from segmed.structures import LabelClass

LABELS = [LabelClass(name="one", value=1), LabelClass(name="two", value=2)]


def case_of(case_id, prediction, reference):
    return evaluate_case(
        np.array([prediction], np.uint8),
        np.array([reference], np.uint8),
        labels=LABELS,
        spacing_mm=(3.0, 1.0),
        case_id=case_id,
        regions={"either": (1, 2)},
    )


@pytest.fixture(name="table")
def some_table():
    """Label one: found, missed, found by mistake, rightly absent. Label two: always absent."""
    return scores_table(
        [
            *case_of("a", [1, 1, 0, 0], [1, 1, 1, 0]),
            *case_of("b", [0, 0, 0, 0], [1, 0, 0, 0]),
            *case_of("c", [0, 1, 0, 0], [0, 0, 0, 0]),
            *case_of("d", [0, 0, 0, 0], [0, 0, 0, 0]),
        ]
    )


def row_of(summary, label, metric):
    (row,) = summary[(summary["label"] == label) & (summary["metric"] == metric)].to_dict("records")
    return row


def test_a_miss_and_an_invention_count_as_zero_and_a_rightly_empty_case_does_not(table):
    row = row_of(summarise(table), "one", "dice")
    assert row["mean"] == pytest.approx((0.8 + 0 + 0) / 3)
    assert row["median"] == 0
    assert row["std"] == pytest.approx(np.std([0.8, 0, 0], ddof=1))
    assert (row["q25"], row["q75"]) == pytest.approx((0, 0.4))
    counts = [row[name] for name in ("n", "n_missed", "n_false_positive", "n_both_empty")]
    assert counts == [3, 1, 1, 1]
    assert 0 <= row["ci_low"] <= row["mean"] <= row["ci_high"] < 0.8001


def test_a_miss_raises_the_mean_distance(table):
    row = row_of(summarise(table), "one", "hd_mm")
    assert row["mean"] == pytest.approx((1 + 5 + 5) / 3)  # the diagonal of 1 x 3 mm by 4 x 1 mm


def test_a_label_that_never_occurs_has_no_mean(table):
    row = row_of(summarise(table), "two", "dice")
    assert (row["n"], row["n_both_empty"]) == (0, 4)
    assert np.isnan([row["mean"], row["median"], row["ci_low"], row["ci_high"]]).all()


def test_the_mean_row_averages_labels_and_leaves_regions_out():
    table = scores_table(
        [*case_of("a", [1, 2, 2, 0], [1, 1, 2, 0]), *case_of("b", [1, 0, 0, 0], [1, 0, 0, 2])]
    )
    row = row_of(summarise(table), "mean", "dice")
    assert row["mean"] == pytest.approx(((2 / 3 + 2 / 3) / 2 + (1 + 0) / 2) / 2)
    assert (row["n"], row["n_missed"]) == (2, 1)


def test_a_mean_of_nothing_is_refused(table):
    with pytest.raises(MetricError, match="no score to average"):
        summarise(table[table["both_empty"]])
    with pytest.raises(MetricError, match="no score to average"):
        summarise(table.iloc[:0])


def test_a_score_that_is_not_a_number_is_refused(table):
    table.loc[0, "hd_mm"] = np.inf
    with pytest.raises(MetricError, match="not a number"):
        summarise(table)


def test_a_case_that_occurs_twice_is_refused():
    scores = case_of("a", [1, 1, 0, 0], [1, 1, 1, 0])
    with pytest.raises(MetricError, match="twice"):
        scores_table([*scores, *scores])


def test_a_table_of_something_else_is_refused():
    with pytest.raises(MetricError, match="columns"):
        summarise(pd.DataFrame({"case": ["a"], "dice": [1.0]}))


def test_the_interval_is_the_same_each_time_and_close_to_the_normal_one():
    rng = np.random.default_rng(0)
    table = scores_table(
        score
        for case in range(60)
        for score in case_of(f"c{case}", rng.integers(0, 2, 40), np.arange(40) % 2)[:1]
    )
    row, again = (row_of(summarise(table), "one", "dice") for _ in range(2))
    assert row == again
    half = 1.96 * row["std"] / np.sqrt(row["n"])
    assert row["ci_low"] == pytest.approx(row["mean"] - half, abs=0.2 * half)
    assert row["ci_high"] == pytest.approx(row["mean"] + half, abs=0.2 * half)


def test_one_case_has_a_mean_and_no_interval():
    row = row_of(summarise(scores_table(case_of("a", [1, 0, 0], [1, 1, 0]))), "one", "dice")
    assert row["mean"] == pytest.approx(2 / 3)
    assert np.isnan([row["std"], row["ci_low"], row["ci_high"]]).all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_a_written_table_reads_back_equal(tmp_path, table, suffix):
    path = write_table(table, tmp_path / "deep" / f"scores{suffix}")
    read = read_table(path)
    pd.testing.assert_frame_equal(read, table, check_dtype=False, rtol=1e-12)
    pd.testing.assert_frame_equal(summarise(read), summarise(table), rtol=1e-9)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_cases_named_by_numbers_stay_names(tmp_path):
    table = scores_table(case_of("007", [1, 0], [1, 0]))
    for suffix in (".csv", ".json"):
        read = read_table(write_table(table, tmp_path / f"scores{suffix}"))
        assert set(read["case"]) == {"007"}


def test_another_suffix_is_refused_and_nothing_is_written(tmp_path, table):
    with pytest.raises(MetricError, match=r"\.parquet"):
        write_table(table, tmp_path / "scores.xlsx")
    with pytest.raises(MetricError, match=r"\.parquet"):
        read_table(tmp_path / "scores.xlsx")
    assert not list(tmp_path.iterdir())


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, table):
    path = write_table(table, tmp_path / "scores.parquet")
    before = path.read_bytes()
    with pytest.raises(pa.ArrowException):
        write_table(pd.DataFrame({"x": [1, "a", 2j]}), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_every_metric_has_a_column(table):
    assert {metric.name for metric in METRICS} <= set(table.columns)
