"""Models on the same cases: who wins, by how much, and how sure that is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from segmed.errors import MetricError, UsageError
from segmed.metrics import METRICS, ModelCost, compare_models, evaluate_case, scores_table
from segmed.metrics.significance import holm, signed_rank_p
from segmed.structures import LabelClass

LABELS = [LabelClass(name="left", value=1), LabelClass(name="right", value=2)]
EVERY_METRIC = [metric.name for metric in METRICS]


def reference_of(rng):
    labels = np.zeros((24, 24), np.uint8)
    top, left = rng.integers(2, 6, 2)
    labels[top : top + 9, left : left + 6] = 1
    labels[top : top + 9, left + 8 : left + 13] = 2
    return labels


def worn(labels, rng, flips):
    """The reference with some voxels of its outline taken away."""
    damaged = labels.copy()
    inside = np.argwhere(labels > 0)
    for voxel in rng.permutation(inside)[:flips]:
        damaged[tuple(voxel)] = 0
    return damaged


def table_of(predictions, references):
    return scores_table(
        score
        for number, (prediction, reference) in enumerate(zip(predictions, references, strict=True))
        for score in evaluate_case(
            prediction,
            reference,
            labels=LABELS,
            spacing_mm=(1.0, 1.0),
            case_id=f"case{number}",
        )
    )


@pytest.fixture(scope="module", name="tables")
def three_models():
    """`fine` is a little worn, `rough` more so, `half` is perfect but empty in half the cases."""
    rng = np.random.default_rng(0)
    references = [reference_of(rng) for _ in range(20)]
    return {
        "rough": table_of([worn(r, rng, 25) for r in references], references),
        "half": table_of([r * (i % 2) for i, r in enumerate(references)], references),
        "fine": table_of([worn(r, rng, 6) for r in references], references),
    }


def test_a_model_that_is_empty_in_half_the_cases_ranks_last_on_every_metric(tables):
    outcome = compare_models(tables, EVERY_METRIC)
    half = outcome.ranking[outcome.ranking["model"] == "half"]
    assert set(half["metric"]) == set(EVERY_METRIC)
    assert (half["rank"] == 3).all()
    assert outcome.overall["model"].tolist() == ["fine", "rough", "half"]
    assert outcome.warnings[0].startswith("half missed 20 of 40 structures")
    assert "ranks last on every metric" in outcome.warnings[0]


def test_a_clear_difference_is_said_in_words(tables):
    two = {name: tables[name] for name in ("rough", "fine")}
    outcome = compare_models(two)
    left = next(s for s in outcome.sentences if " left " in s)
    assert left.startswith("fine beats rough on left Dice by ")
    row = outcome.pairs[(outcome.pairs["label"] == "left") & (outcome.pairs["metric"] == "dice")]
    gain = -100 * row["difference"].iloc[0]
    assert f"by {gain:.1f} points, 95 % {-100 * row['ci_high'].iloc[0]:.1f} to " in left
    assert outcome.warnings == ()


def test_no_difference_is_said_in_words(tables):
    same = {"first": tables["fine"], "second": tables["fine"].copy()}
    outcome = compare_models(same)
    assert (outcome.pairs["better"] == "").all()
    assert (outcome.pairs["p_holm"] == 1).all()
    assert (outcome.pairs["tie_rate"] == 1).all()
    assert (outcome.ranking["rank"] == 1).all()
    text = [s for s in outcome.sentences if "between" in s]
    assert text[0].startswith("no difference shown between first and second on mean Dice (0.0")


def test_pairs_hold_the_paired_mean_and_the_win_rate(tables):
    outcome = compare_models(tables, "dice")
    row = outcome.pairs[
        (outcome.pairs["label"] == "right")
        & (outcome.pairs["model_a"] == "rough")
        & (outcome.pairs["model_b"] == "fine")
    ].iloc[0]
    a, b = (
        tables[name][tables[name]["label"] == "right"]["dice"].to_numpy()
        for name in ("rough", "fine")
    )
    assert row["difference"] == pytest.approx((a - b).mean())
    assert row["win_rate"] == pytest.approx((a > b).mean())
    assert row["loss_rate"] == pytest.approx((a < b).mean())
    assert row["ci_low"] <= row["difference"] <= row["ci_high"]
    assert row["p_holm"] >= row["p_value"]
    assert row["n"] == 20


def test_ranks_come_with_their_stability(tables):
    ranking = compare_models(tables, "dice").ranking
    mean = ranking[ranking["label"] == "mean"].set_index("model")
    assert mean["rank"].to_dict() == {"fine": 1, "rough": 2, "half": 3}
    assert mean.loc["fine", "share_first"] > 0.95
    assert (mean["rank_low"] <= mean["rank"]).all()
    assert (mean["rank"] <= mean["rank_high"]).all()
    assert mean["kendall_tau"].between(0.5, 1).all()


def test_an_invented_structure_costs_against_a_model_that_rightly_finds_nothing():
    rng = np.random.default_rng(1)
    references = [reference_of(rng) for _ in range(8)]
    for reference in references[:4]:
        reference[reference == 2] = 0
    inventing = [reference.copy() for reference in references]
    for prediction in inventing[:4]:
        prediction[20:22, 20:22] = 2
    tables = {
        "inventing": table_of(inventing, references),
        "honest": table_of(references, references),
    }
    outcome = compare_models(tables, EVERY_METRIC)
    right = outcome.ranking[outcome.ranking["label"] == "right"]
    assert (right[right["model"] == "inventing"]["rank"] == 2).all()
    assert (right["n"] == 8).all()
    assert any("inventing found a structure in 4 of 4 places" in w for w in outcome.warnings)


def test_costs_stand_beside_the_ranks(tables):
    costs = {"fine": ModelCost(parameters=1_000, seconds_per_case=0.5, peak_memory_mb=300)}
    overall = compare_models(tables, "dice", costs=costs).overall.set_index("model")
    assert overall.loc["fine", ["parameters", "seconds_per_case"]].tolist() == [1000, 0.5]
    assert overall.loc["half"][["parameters", "peak_memory_mb"]].isna().all()
    with pytest.raises(UsageError, match="unknown model"):
        compare_models(tables, "dice", costs={"other": ModelCost()})


def test_cases_that_differ_are_refused(tables):
    short = tables["fine"][tables["fine"]["case"] != "case3"]
    with pytest.raises(MetricError, match="case3"):
        compare_models({"fine": tables["fine"], "short": short})


def test_one_model_or_an_unknown_metric_is_refused(tables):
    with pytest.raises(MetricError, match="two models"):
        compare_models({"fine": tables["fine"]})
    with pytest.raises(UsageError, match="known are"):
        compare_models(tables, "dise")


def test_too_few_cases_for_the_tests_are_said():
    few = {}
    rng = np.random.default_rng(2)
    references = [reference_of(rng) for _ in range(4)]
    for name, flips in (("a", 3), ("b", 20)):
        few[name] = table_of([worn(r, rng, flips) for r in references], references)
    outcome = compare_models(few, "dice")
    assert any(w.startswith("4 cases are too few for 3 tests") for w in outcome.warnings)
    assert (outcome.pairs["better"] == "").all()
    assert any("a leads b, unconfirmed" in s for s in outcome.sentences)


def test_order_of_rows_does_not_matter(tables):
    shuffled = {
        name: table.sample(frac=1, random_state=number)
        for number, (name, table) in enumerate(tables.items())
    }
    first, second = compare_models(tables), compare_models(shuffled)
    key = ["label", "metric", "model_a", "model_b"]
    columns = [*key, "difference", "p_value", "win_rate"]
    pd.testing.assert_frame_equal(
        first.pairs[columns].sort_values(key, ignore_index=True),
        second.pairs[columns].sort_values(key, ignore_index=True),
    )


def test_signed_rank_equals_scipy_without_ties_and_enumeration_with_them():
    rng = np.random.default_rng(0)
    for n in (5, 12, 40, 80):
        differences = rng.standard_normal(n) + 0.3
        method = "exact" if n <= 50 else "asymptotic"
        expected = stats.wilcoxon(differences, method=method).pvalue
        assert signed_rank_p(differences) == pytest.approx(expected)
    # Ranks 1.5 1.5 3 of +1 +1 +2: only all-plus and all-minus are as far out: 2 of 8.
    assert signed_rank_p(np.array([1.0, 1.0, 2.0, 0.0])) == pytest.approx(0.25)
    assert signed_rank_p(np.zeros(7)) == 1.0


def test_holm_steps_down_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
