"""The model card of a version: purpose, training data, scores and failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.registry.faster_words import in_words
from pipelines.tracking.held_out import doubt_of
from pipelines.tracking.tags import HELD_OUT
from segmed.package import ModelPackage
from segmed.package.training_cases import CORRECTIONS
from segmed.plan import Plan
from segmed.plan.cleaning_words import rules_in_words
from segmed.quality.package_form import quality_model_in
from segmed.quality.statements import model_in_words
from segmed.structures import LabelClass

MAX_CARD_LENGTH = 5000
"""Characters of a version's description that MLflow keeps."""

SHOWN_METRICS = (("dice", "Dice"), ("hd95_mm", "HD95 (mm)"), ("nsd", "NSD"))
"""Metrics in the table of scores."""


def card_of(package: ModelPackage, scores: Mapping[str, Any] | None = None) -> str:
    """The card as Markdown.

    Args:
        package: The model.
        scores: From `held_out_scores`; those that the package carries if left out.

    Returns:
        At most `MAX_CARD_LENGTH` characters; rows of the table that do not fit are counted.
    """
    plan, made = package.plan, package.provenance
    scores = scores or made.get(HELD_OUT)
    head = [
        f"# {plan.name}: {_form(package)}, {package.dimensions}",
        "",
        *_nothing_learned(scores),
        "## Intended use",
        f"Segmentation of {', '.join(label.name for label in plan.labels)} in "
        f"{', '.join(f'{c.name} ({c.modality})' for c in plan.channels)} images, for research. "
        "Not a medical device; a person must look at each result that matters.",
        "",
        "## Contract",
        f"- input: {len(plan.channels)} channel(s), orientation "
        f"{plan.preprocessing.orientation or 'as stored'}, resampled to "
        + " and to ".join(_spacing(one) for one in (plan, *package.plans)),
        "- output: on the input's own grid; " + ", ".join(_label(label) for label in plan.labels),
        *[f"- post-processing: {text}" for text in rules_in_words(plan)],
        *_int8(package),
        *_predicted_quality(package),
        "",
        "## Data",
        *_facts(made),
        "",
    ]
    tail = [
        "",
        *_failures(scores),
        "## Limits",
        "- Images of other scanners, sequences, ages or pathologies than the training set's are "
        "untested; score some of your own first.",
        "- A structure that is not in the image may be invented; a small one may be missed.",
        "",
        f"Package hash `{package.hash}`",
    ]
    return _fitted(head, _scores(scores, made.get("fold")), tail)


def _nothing_learned(scores: Mapping[str, Any] | None) -> list[str]:
    """A sentence above everything else for a model that overlaps with next to nothing."""
    doubt = doubt_of(scores)
    if doubt is None:
        return []
    return [f"**Nothing was learned**: {doubt}. Train longer before anyone uses this version.", ""]


def _int8(package: ModelPackage) -> list[str]:
    int8 = package.accepted_int8
    return [] if int8 is None else [f"- int8: {in_words(int8.record.model_dump())}"]


def _predicted_quality(package: ModelPackage) -> list[str]:
    model = quality_model_in(package.provenance)
    return [] if model is None else [f"- predicted quality: {model_in_words(model)}"]


def _form(package: ModelPackage) -> str:
    encoder = " with a residual encoder" if package.options.get("residual_blocks") else ""
    members = f", mean of {package.members} networks" if package.members > 1 else ""
    if package.plan.refines:
        members = f", a cascade of two stages, {package.members} networks"
    return f"{package.architecture}{encoder}{members}"


def _spacing(plan: Plan) -> str:
    return f"{' x '.join(f'{edge:g}' for edge in plan.preprocessing.spacing_mm)} mm"


def _label(label: LabelClass) -> str:
    code = label.code
    coded = f" ({code.scheme} {code.value}, {code.meaning})" if code is not None else ""
    region = f" (with {', '.join(map(str, label.region))})" if label.region else ""
    return f"{label.value}{region} = {label.name}{coded}"


def _facts(made: Mapping[str, Any]) -> list[str]:
    names = {
        "data": "image set",
        "data_hash": "hash of the training cases",
        "data_source": "source",
        "data_licence": "licence of the images",
        "trained_by": "trained by",
        "trainer": "trainer",
        "plans": "plans",
        "configuration": "configuration",
        "dataset_fingerprint": "sha256 of the dataset fingerprint",
        "weights_licence": "licence of the weights",
        "started_from": "started from",
        "overlap_rule": "overlaps",
        "fold": "fold held out",
        "steps": "training steps",
        "created": "made",
        "commit": "commit",
    }
    facts = [
        f"- {title}: {made[key]}" for key, title in names.items() if made.get(key) not in {None, ""}
    ]
    if corrections := made.get(CORRECTIONS):
        facts.append(f"- accepted corrections among the training cases: {len(corrections)}")
    if scores := made.get("fold_scores"):
        text = ", ".join(f"fold {fold} {dice:.3f}" for fold, dice in scores.items())
        facts.append(f"- mean foreground Dice of its own validation (nnU-Net): {text}")
    return facts or ["- not stated"]


def _scores(scores: Mapping[str, Any] | None, fold: Any) -> list[str]:
    if scores is None:
        return ["## Scores", "None are kept with this version."]
    structures: Mapping[str, Mapping[str, Any]] = scores["structures"]
    metrics = [e for e in SHOWN_METRICS if any(e[0] in found for found in structures.values())]
    lines = [
        "## Scores on cases kept out of training",
        _held_out(scores, fold) + " Mean (95 % interval); a missed structure counts as 0 and the "
        "image diagonal.",
        "",
        "| structure | n | missed | invented | " + " | ".join(title for _, title in metrics) + " |",
        "|:---|---:|---:|---:|" + ":---:|" * len(metrics),
    ]
    unit = scores.get("unit", "mm")
    lines[-2] = lines[-2].replace("(mm)", f"({unit})")
    for label, found in structures.items():
        shown = [
            _cell(found.get(name, {}), digits=2 if name.endswith("_mm") else 3)
            for name, _ in metrics
        ]
        counts = [str(found[name]) for name in ("n", "n_missed", "n_false_positive")]
        lines.append(f"| {' | '.join([label, *counts, *shown])} |")
    return lines


def _held_out(scores: Mapping[str, Any], fold: Any) -> str:
    """Describe the held-out cases in a sentence."""
    cases = f"{scores['cases']} case{'s' if scores['cases'] > 1 else ''}"
    folds = scores["folds"]
    if len(folds) < 2:
        return f"{cases}."
    text = ", ".join(map(str, folds))
    return (
        f"{cases} of folds {text}, each by a model that did not see it; this one is fold {fold}'s."
    )


def _cell(found: Mapping[str, float | None], *, digits: int) -> str:
    mean, low, high = (found.get(name) for name in ("mean", "ci_low", "ci_high"))
    if mean is None:
        return "not scored"
    if low is None or high is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _failures(scores: Mapping[str, Any] | None) -> list[str]:
    """The worst held-out results, cases unnamed."""
    if not scores or not scores["failures"]:
        return []
    return [
        "## Failure cases",
        "The worst of the held-out cases, one a line:",
        *(f"- {_failure(entry, scores.get('unit', 'mm'))}" for entry in scores["failures"]),
        "",
    ]


def _failure(entry: Mapping[str, Any], unit: str) -> str:
    is_volume = unit == "mm"  # without a spacing there are no millilitres either
    found = entry["volume_prediction_ml"] if is_volume else None
    true = entry["volume_reference_ml"] if is_volume else None
    if entry["what"] == "missed":
        return f"{entry['structure']} missed altogether" + (f" ({true:.3g} ml)" if true else "")
    if entry["what"] == "invented":
        return f"{entry['structure']} invented" + (f" ({found:.3g} ml)" if found else "")
    volumes = f", {found:.3g} ml for {true:.3g} ml" if found and true else ""
    distance = f"HD95 {entry['hd95_mm']:.2f} {unit}"
    return f"{entry['structure']}: Dice {entry['dice']:.3f}, {distance}{volumes}"


def _fitted(head: list[str], scores: list[str], tail: list[str]) -> str:
    left_out = 0
    while True:
        more = [f"| and {left_out} more |"] if left_out else []
        text = "\n".join([*head, *scores, *more, *tail])
        if len(text) <= MAX_CARD_LENGTH or len(scores) <= 5:
            return text[:MAX_CARD_LENGTH]
        scores = scores[:-1]
        left_out += 1
