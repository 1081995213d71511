"""Models compared on the same cases: differences, tests, ranks and how stable they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from segmed.errors import MetricError, unknown_name
from segmed.metrics.resample import bootstrap_means, interval
from segmed.metrics.score import MEAN_LABEL, METRICS, Metric
from segmed.metrics.sentences import model_warnings, pair_sentences, rank_sentences
from segmed.metrics.significance import SIGNIFICANCE, holm, signed_rank_p
from segmed.metrics.summary import scored_rows
from segmed.metrics.table import check_table

Values = npt.NDArray[np.float64]

DEFAULT_METRICS = ("dice", "hd95_mm")
"""One overlap and one distance: what a comparison is about unless asked otherwise."""


@dataclass(frozen=True)
class ModelCost:
    """Cost of a model: parameters, time and memory.

    Attributes:
        parameters: Trainable numbers.
        seconds_per_case: Mean wall-clock time for one case, in s.
        peak_memory_mb: Largest memory while predicting, in MB.
    """

    parameters: int | None = None
    seconds_per_case: float | None = None
    peak_memory_mb: float | None = None


@dataclass(frozen=True, repr=False)
class Comparison:
    """The outcome of `compare_models`.

    Attributes:
        ranking: One row a label, metric and model: label, metric, model, mean, ci_low, ci_high, n,
            rank (1 is best, by the mean), rank_low and rank_high (95 % of bootstrap samples),
            share_first (of the samples), kendall_tau (mean agreement of the samples' order with
            the order of all cases; 1 is unshakeable).
        pairs: One row a label, metric and pair of models: label, metric, model_a, model_b, n,
            difference (of the means, a minus b), ci_low, ci_high, p_value (Wilcoxon signed-rank),
            p_holm (over the whole table), win_rate, tie_rate, loss_rate (of cases, a against b),
            better (a model, or empty where no difference is shown).
        overall: One row a model, the best first: model, first_rank (on the first metric, for the
            mean over labels), mean_rank (over all metrics, which settles ties), n_missed,
            n_false_positive, n_both_empty, parameters, seconds_per_case, peak_memory_mb.
        sentences: The outcome in words, the leader against each other model.
        warnings: Warnings to be printed above everything else.
    """

    ranking: pd.DataFrame
    pairs: pd.DataFrame
    overall: pd.DataFrame
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """Models, the best first, and the number of warnings in one line."""
        names = ", ".join(str(name) for name in self.overall["model"])
        return f"Comparison({names}; {len(self.warnings)} warnings)"


def compare_models(
    tables: Mapping[str, pd.DataFrame],
    metric: str | Sequence[str] = DEFAULT_METRICS,
    *,
    costs: Mapping[str, ModelCost] | None = None,
    unit: str = "mm",
) -> Comparison:
    """Compare models that were scored on the same cases.

    Where one model rightly finds nothing and another invents the structure, the first counts as
    perfect there (1, or 0 mm): otherwise the invention would cost nothing. Where all rightly find
    nothing, the row is left out. A miss counts with the image diagonal and 0.

    Args:
        tables: Table of `scores_table` by model name, at least two.
        metric: One or more metric names.
        costs: Cost by model name, shown beside the ranks.
        unit: Unit of distances in the sentences: `px` for images without a spacing.

    Returns:
        Ranking, paired tests, sentences and warnings.

    Raises:
        MetricError: Fewer than two models, cases that differ, or nothing to compare.
        UsageError: Unknown metric, or costs of an unknown model.

    Source:
        Wiesenfarth et al. 2021, Scientific Reports 11:2369 (ranking by bootstrap); Holm 1979.
    """
    metrics = _metrics_named([metric] if isinstance(metric, str) else metric)
    for name in set(costs or {}) - set(tables):
        raise unknown_name("model", name, tables)
    values = paired_values(tables, metrics)
    ranking = pd.DataFrame(
        row for label, cases in values.items() for row in _ranks(label, cases, metrics)
    )
    pairs = _pairs(values, metrics)
    overall = _overall(ranking, tables, costs or {})
    leader = str(overall["model"].iloc[0])
    return Comparison(
        ranking=ranking,
        pairs=pairs,
        overall=overall,
        sentences=(
            *rank_sentences(ranking, leader, unit),
            *pair_sentences(pairs, leader, unit),
        ),
        warnings=tuple(model_warnings(tables, ranking, pairs)),
    )


def paired_values(
    tables: Mapping[str, pd.DataFrame], metrics: Sequence[Metric]
) -> dict[str, dict[str, pd.DataFrame]]:
    """Scores on the same cases, by label and metric: one row a case, one column a model.

    Raises:
        MetricError: Fewer than two models, cases that differ, or nothing to compare.
    """
    if len(tables) < 2:
        raise MetricError(f"a comparison needs two models or more, got {list(tables)}")
    names = [metric.name for metric in metrics]
    first = next(iter(tables))
    rows = {name: _by_row(name, table, names) for name, table in tables.items()}
    for name, table in rows.items():
        odd = table.index.symmetric_difference(rows[first].index)
        if len(odd):
            raise MetricError(
                f"{first} and {name} were not scored on the same rows: case {odd[0][0]!r}, label "
                f"{odd[0][1]!r} is in one only; score a missing prediction as zeros"
            )
    is_region = rows[first]["is_region"].astype(bool)
    regions = set(is_region[is_region].index.get_level_values("label"))
    paired: dict[str, dict[str, pd.DataFrame]] = {}
    for metric in metrics:
        joined = pd.DataFrame({name: table[metric.name] for name, table in rows.items()})
        joined = joined.reindex(rows[first].index).dropna(how="all")
        joined = joined.fillna(1.0 if metric.higher_is_better else 0.0)
        label_of = joined.index.get_level_values("label")
        for label in dict.fromkeys(label_of):
            one = joined[label_of == label].droplevel("label")
            paired.setdefault(str(label), {})[metric.name] = one
        plain = joined[~label_of.isin(regions)]
        if len(plain):
            mean = plain.groupby(level="case", sort=False).mean()
            paired.setdefault(MEAN_LABEL, {})[metric.name] = mean
    if not paired:
        raise MetricError("nothing to compare: prediction and reference are empty in every row")
    return paired


def _metrics_named(names: Sequence[str]) -> list[Metric]:
    known = {metric.name: metric for metric in METRICS}
    for name in names:
        if name not in known:
            raise unknown_name("metric", name, known)
    return [known[name] for name in dict.fromkeys(names)]


def _by_row(model: str, table: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    check_table(table)
    missing = [name for name in metrics if name not in table.columns]
    if missing:
        raise MetricError(f"the table of {model} has no {', '.join(missing)}; score it again")
    scored_rows(table, metrics)
    return table.set_index(["case", "label"])[["is_region", *metrics]]


def _ranks(
    label: str, cases: Mapping[str, pd.DataFrame], metrics: Sequence[Metric]
) -> Iterator[dict[str, object]]:
    for metric in metrics:
        values = cases[metric.name].to_numpy(dtype=np.float64)
        sign = -1.0 if metric.higher_is_better else 1.0
        means = values.mean(axis=0)
        samples = bootstrap_means(values)
        low, high = interval(samples)
        ranks = rankdata(sign * means, method="min")
        drawn = rankdata(sign * samples, method="min", axis=1)
        rank_low, rank_high = interval(drawn)
        for column, model in enumerate(cases[metric.name].columns):
            yield {
                "label": label,
                "metric": metric.name,
                "model": model,
                "mean": means[column],
                "ci_low": low[column],
                "ci_high": high[column],
                "n": len(values),
                "rank": int(ranks[column]),
                "rank_low": int(np.floor(rank_low[column])),
                "rank_high": int(np.ceil(rank_high[column])),
                "share_first": float((drawn[:, column] == 1).mean()),
                "kendall_tau": _kendall_tau(means, samples),
            }


def _kendall_tau(means: Values, samples: Values) -> float:
    """Mean tau-a between the order of the means and that of each bootstrap sample."""
    first, second = np.triu_indices(means.size, 1)
    whole = np.sign(means[first] - means[second])
    drawn = np.sign(samples[:, first] - samples[:, second])
    return float((whole * drawn).mean())


def _pairs(
    values: Mapping[str, Mapping[str, pd.DataFrame]], metrics: Sequence[Metric]
) -> pd.DataFrame:
    rows = [
        _pair(label, metric, cases[metric.name], models)
        for label, cases in values.items()
        for metric in metrics
        for models in combinations(cases[metric.name].columns, 2)
    ]
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p_value"].to_numpy())
    shown = (table["p_holm"] < SIGNIFICANCE) & ((table["ci_low"] > 0) | (table["ci_high"] < 0))
    ahead = (table["difference"] > 0) == table["metric"].map(
        {metric.name: metric.higher_is_better for metric in metrics}
    )
    winner = table["model_a"].where(ahead, table["model_b"])
    table["better"] = winner.where(shown, "")
    return table


def _pair(
    label: str, metric: Metric, cases: pd.DataFrame, models: tuple[str, str]
) -> dict[str, object]:
    difference = (cases[models[0]] - cases[models[1]]).to_numpy(dtype=np.float64)
    low, high = interval(bootstrap_means(difference[:, None]))
    gain = difference if metric.higher_is_better else -difference
    return {
        "label": label,
        "metric": metric.name,
        "model_a": models[0],
        "model_b": models[1],
        "n": len(difference),
        "difference": difference.mean(),
        "ci_low": low[0],
        "ci_high": high[0],
        "p_value": signed_rank_p(difference),
        "win_rate": float((gain > 0).mean()),
        "tie_rate": float((gain == 0).mean()),
        "loss_rate": float((gain < 0).mean()),
    }


def _overall(
    ranking: pd.DataFrame, tables: Mapping[str, pd.DataFrame], costs: Mapping[str, ModelCost]
) -> pd.DataFrame:
    has_mean = (ranking["label"] == MEAN_LABEL).any()
    basis = ranking[ranking["label"] == MEAN_LABEL] if has_mean else ranking
    mean_rank = basis.groupby("model", sort=False)["rank"].mean()
    leading = basis[basis["metric"] == basis["metric"].iloc[0]]
    first_rank = leading.groupby("model", sort=False)["rank"].mean()
    rows = []
    for model, table in tables.items():
        labels = table[~table["is_region"].astype(bool)] if has_mean else table
        rows.append(
            {
                "model": model,
                "first_rank": first_rank[model],
                "mean_rank": mean_rank[model],
                "n_missed": int(labels["missed"].sum()),
                "n_false_positive": int(labels["false_positive"].sum()),
                "n_both_empty": int(labels["both_empty"].sum()),
                **asdict(costs.get(model, ModelCost())),
            }
        )
    order = ["first_rank", "mean_rank"]
    return pd.DataFrame(rows).sort_values(order, kind="stable", ignore_index=True)
