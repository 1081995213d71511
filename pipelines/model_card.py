"""The model card: what a version is for, what it was made from, how good it is, where it fails."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from segmed.package import ModelPackage

MAX_CARD_LENGTH = 5000
"""Characters of a version's description that MLflow keeps."""

SHOWN_METRICS = (("dice", "Dice"), ("hd95_mm", "HD95 (mm)"), ("nsd", "NSD"))
"""Metrics in the table of scores."""


def card_of(package: ModelPackage, summary: pd.DataFrame | None = None) -> str:
    """The card as Markdown.

    Args:
        package: The model.
        summary: Scores on cases kept out of training, as from `segmed.metrics.summarise`.

    Returns:
        At most `MAX_CARD_LENGTH` characters; rows of the table that do not fit are counted.
    """
    plan, made = package.plan, package.provenance
    head = [
        f"# {plan.name}: {_form(package)}, {plan.spatial_dims}D",
        "",
        "## Intended use",
        f"Segmentation of {', '.join(label.name for label in plan.labels)} in "
        f"{', '.join(f'{c.name} ({c.modality})' for c in plan.channels)} images, for research. "
        "Not a medical device; a person must look at each result that matters.",
        "",
        "## Contract",
        f"- input: {len(plan.channels)} channel(s), orientation "
        f"{plan.preprocessing.orientation or 'as stored'}, resampled to "
        f"{' x '.join(f'{edge:g}' for edge in plan.preprocessing.spacing_mm)} mm",
        "- output: on the input's own grid; "
        + ", ".join(_label(label.name, label.value, label.code) for label in plan.labels),
        "",
        "## Data",
        *_facts(made),
        "",
    ]
    tail = [
        "",
        "## Limits",
        "- Images of other scanners, sequences, ages or pathologies than the training set's are "
        "untested; score some of your own first.",
        "- A structure that is not in the image may be invented; a small one may be missed.",
        "",
        f"Package hash `{package.hash}`",
    ]
    return _fitted(head, _scores(summary), tail)


def _form(package: ModelPackage) -> str:
    if package.members == 1:
        return package.architecture
    return f"{package.architecture}, mean of {package.members} networks"


def _label(name: str, value: int, code: Any) -> str:
    coded = f" ({code.scheme} {code.value}, {code.meaning})" if code is not None else ""
    return f"{value} = {name}{coded}"


def _facts(made: Mapping[str, Any]) -> list[str]:
    names = {
        "data": "image set",
        "data_hash": "hash of the training cases",
        "data_source": "source",
        "data_licence": "licence of the images",
        "fold": "fold held out",
        "steps": "training steps",
        "created": "made",
        "commit": "commit",
    }
    facts = [
        f"- {title}: {made[key]}" for key, title in names.items() if made.get(key) not in {None, ""}
    ]
    return facts or ["- not stated"]


def _scores(summary: pd.DataFrame | None) -> list[str]:
    if summary is None:
        return ["## Scores", "None are kept with this version."]
    known = {(row["label"], row["metric"]): row for row in summary.to_dict("records")}
    metrics = [entry for entry in SHOWN_METRICS if entry[0] in set(summary["metric"])]
    lines = [
        "## Scores on cases kept out of training",
        "Mean (95 % interval); a missed structure counts as 0 and the image diagonal.",
        "",
        "| structure | n | missed | invented | " + " | ".join(title for _, title in metrics) + " |",
        "|---|---|---|---|" + "---|" * len(metrics),
    ]
    for label in dict.fromkeys(summary["label"]):
        row = known[label, metrics[0][0]]
        cells = [_cell(known[label, metric]) for metric, _ in metrics]
        lines.append(
            f"| {label} | {row['n']} | {row['n_missed']} | {row['n_false_positive']} | "
            + " | ".join(cells)
            + " |"
        )
    return lines


def _cell(row: Mapping[Any, Any]) -> str:
    if not math.isfinite(row["mean"]):
        return "not scored"
    if not math.isfinite(row["ci_low"]):
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"


def _fitted(head: list[str], scores: list[str], tail: list[str]) -> str:
    left_out = 0
    while True:
        more = [f"| and {left_out} more |"] if left_out else []
        text = "\n".join([*head, *scores, *more, *tail])
        if len(text) <= MAX_CARD_LENGTH or len(scores) <= 5:
            return text[:MAX_CARD_LENGTH]
        scores = scores[:-1]
        left_out += 1
