"""The outcome of a comparison in plain words."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from segmed.metrics.score import MEAN_LABEL, METRICS, Metric
from segmed.metrics.significance import SIGNIFICANCE

_NONE = "no difference shown on"
_METRIC = {metric.name: metric for metric in METRICS}


def rank_sentences(ranking: pd.DataFrame, leader: str, unit: str = "mm") -> list[str]:
    """Rank of the leading model on each metric, for the mean over labels.

    One case alone has no useful bootstrap samples: its sentences name none.
    """
    models = ranking["model"].nunique()
    mine = ranking[(ranking["model"] == leader) & (ranking["label"] == MEAN_LABEL)]
    return [
        f"{leader} ranks {row['rank']} of {models} on {MEAN_LABEL} {_METRIC[row['metric']].title} "
        f"({_value(_METRIC[row['metric']], row['mean'], unit)}, n = {row['n']})"
        + (
            f" and comes first in {100 * row['share_first']:.0f} % of bootstrap samples"
            if row["n"] > 1
            else ""
        )
        for row in mine.to_dict("records")
    ]


def pair_sentences(pairs: pd.DataFrame, leader: str, unit: str = "mm") -> list[str]:
    """One sentence for each rival of the leader and each label.

    Example:
        `unetpp beats unet on anterior Dice by 0.6 points, 95 % 0.2 to 1.0; no difference shown on
        HD95 (-0.1 mm, 95 % -0.4 to 0.2)`
    """
    about = pairs[(pairs["model_a"] == leader) | (pairs["model_b"] == leader)]
    labels = list(dict.fromkeys(about["label"]))
    if len(labels) == 2 and MEAN_LABEL in labels:
        labels.remove(MEAN_LABEL)  # the mean over one label is that label
    labels.sort(key=lambda label: label != MEAN_LABEL)
    rivals = list(dict.fromkeys([*about["model_a"], *about["model_b"]]))
    sentences = []
    for label in labels:
        for rival in (name for name in rivals if name != leader):
            between = about[(about["model_a"] == rival) | (about["model_b"] == rival)]
            sentences.append(
                _pair_sentence(between[between["label"] == label], leader, rival, unit)
            )
    return sentences


def model_warnings(
    tables: Mapping[str, pd.DataFrame], ranking: pd.DataFrame, pairs: pd.DataFrame
) -> Iterator[str]:
    """List the warnings of a comparison: misses, false structures, last places, few cases."""
    labels = {model: _labels_only(table) for model, table in tables.items()}
    missed = {model: int(table["missed"].sum()) for model, table in labels.items()}
    for model in sorted(missed, key=lambda name: -missed[name]):
        if missed[model]:
            found_or_missed = len(labels[model]) - int(
                (labels[model]["both_empty"] | labels[model]["false_positive"]).sum()
            )
            yield (
                f"{model} missed {missed[model]} of {found_or_missed} structures (nothing "
                "predicted where the reference has something); each scores 0 and the image "
                f"diagonal{_last_place(model, ranking)}"
            )
    for model, table in labels.items():
        invented = int(table["false_positive"].sum())
        if invented:
            absent = invented + int(table["both_empty"].sum())
            where = f"{invented} of {absent} places where the reference has none"
            yield f"{model} found a structure in {where}"
    cases, tests = int(pairs["n"].max()), len(pairs)
    if len(pairs) * 2.0 ** (1 - cases) >= SIGNIFICANCE:
        yield (
            f"{cases} cases are too few for {tests} tests: no difference can be shown at "
            f"{SIGNIFICANCE}; take more cases, fewer models or fewer metrics"
        )


def _labels_only(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of labels; those of regions where there are no labels."""
    plain = table[~table["is_region"].astype(bool)]
    return plain if len(plain) else table


def _last_place(model: str, ranking: pd.DataFrame) -> str:
    worst = ranking.groupby(["label", "metric"])["rank"].transform("max")
    mine = ranking["model"] == model
    last = mine & (ranking["rank"] == worst) & (ranking["rank"] > 1)
    return "; it ranks last on every metric compared" if last.sum() == mine.sum() else ""


def _pair_sentence(rows: pd.DataFrame, leader: str, rival: str, unit: str) -> str:
    """Clauses by verdict: shown differences first, then unconfirmed leads, then none."""
    label = rows["label"].iloc[0]
    said: dict[str, list[str]] = {}
    for row in rows.to_dict("records"):
        metric = _METRIC[row["metric"]]
        ahead, verdict = _verdict(metric, row)
        behind = row["model_b"] if ahead == row["model_a"] else row["model_a"]
        gain, low, high = _gain(metric, row, ahead if verdict != "none" else leader)
        amount = f"{gain:.1f} {'points' if metric.is_fraction else unit}"
        span = f"95 % {low:.1f} to {high:.1f}"
        if verdict == "shown":
            opening, clause = f"{ahead} beats {behind} on", f"{metric.title} by {amount}, {span}"
        elif verdict == "unconfirmed":
            opening = f"{ahead} leads {behind}, unconfirmed by the signed-rank test, on"
            clause = f"{metric.title} by {amount}, {span}, p = {row['p_holm']:.2g}"
        elif verdict == "one case":
            opening, clause = (
                f"{ahead} leads {behind} on the one case, on",
                (f"{metric.title} by {amount}"),
            )
        else:
            opening, clause = _NONE, f"{metric.title} ({amount}, {span})"
        said.setdefault(opening, []).append(clause)
    first = next(iter(said))
    spoken = [f"{opening} {' and '.join(clauses)}" for opening, clauses in said.items()]
    start = f"no difference shown between {leader} and {rival} on" if first == _NONE else first
    spoken[0] = f"{start} {label} {' and '.join(said[first])}"
    return "; ".join(spoken)


def _verdict(metric: Metric, row: Mapping[Hashable, Any]) -> tuple[str, str]:
    """Model ahead by the mean, and `shown`, `unconfirmed`, `one case` or `none`."""
    a_is_ahead = (row["difference"] > 0) == metric.higher_is_better
    ahead = row["model_a"] if a_is_ahead else row["model_b"]
    if row["better"]:
        return ahead, "shown"
    if row["n"] == 1:
        return ahead, "one case" if row["difference"] else "none"
    return ahead, "unconfirmed" if row["ci_low"] > 0 or row["ci_high"] < 0 else "none"


def _gain(metric: Metric, row: Mapping[Hashable, Any], winner: str) -> tuple[float, float, float]:
    """Advantage of `winner` with its interval, in points or mm; positive is better."""
    scale = 100.0 if metric.is_fraction else 1.0
    sign = scale if metric.higher_is_better == (row["model_a"] == winner) else -scale
    low, high = sorted((sign * row["ci_low"], sign * row["ci_high"]))
    return sign * row["difference"], low, high


def _value(metric: Metric, value: float, unit: str) -> str:
    return f"{value:.3f}" if metric.is_fraction else f"{value:.2f} {unit}"
