"""Packages of networks for different structures, joined to one package for all structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segmed.errors import UsageError
from segmed.package.card import PackagePart
from segmed.package.ensemble import joined_provenance, renumbered
from segmed.package.model_package import ModelPackage
from segmed.plan.schema import Intensity, Plan
from segmed.structures import LabelClass

SHARED = ("spatial_dims", "channels", "patch_size", "slice_axis")
"""Fields of a plan in which part models must agree."""

SHARED_INFERENCE = ("overlap", "blend", "placement", "mirror_axes", "tta")
"""Fields of `Inference`, likewise."""

OVERLAP_RULE = (
    "a voxel that several parts claim gets the structure whose logit exceeds its part's background "
    "most"
)


@dataclass(frozen=True)
class PartModel:
    """One package to join.

    Attributes:
        name: Name in messages and on the card.
        package: The package.
    """

    name: str
    package: ModelPackage


def join_parts(
    models: Sequence[PartModel],
    *,
    name: str,
    label_map: Mapping[str, int] | None = None,
) -> ModelPackage:
    """One package for the structures of several, see `segmed.models.joined`.

    The parts prepare images alike but for intensities: each gets the image on its own scale.

    Args:
        models: The packages, in the order of their structures.
        name: Name of the whole.
        label_map: Label value by the name of each structure; 1, 2, ... in order if not given.

    Raises:
        UsageError: There are fewer than two, two do not fit together, or the label map is not one
            of these structures.
    """
    if len(models) < 2:
        raise UsageError(f"part models are two or more packages, got {len(models)}")
    for model in models:
        _require_joinable(model)
    for other in models[1:]:
        _require_fitting(models[0], other)
    labels = _labels(models, label_map)
    views = list(dict.fromkeys(model.package.plan.preprocessing.intensity for model in models))
    return ModelPackage(
        architecture="+".join(dict.fromkeys(m.package.architecture for m in models)),
        options={},
        plan=_plan(models, name, labels, views),
        state=renumbered([model.package for model in models]),
        provenance=_provenance(models),
        members=sum(model.package.members for model in models),
        parts=tuple(
            PackagePart(
                architecture=model.package.architecture,
                options=dict(model.package.options),
                members=model.package.members,
                structures=len(model.package.plan.labels),
                view=views.index(model.package.plan.preprocessing.intensity),
            )
            for model in models
        ),
    )


def _require_joinable(model: PartModel) -> None:
    """Check that a package may be a part at all."""
    package = model.package
    if package.parts or package.plans:
        raise UsageError(f"{model.name} is several models already: join its parts instead")
    if package.plan.encoding.has_regions:
        raise UsageError(
            f"{model.name} has overlapping structures (regions), which have no class each: only "
            "models of plain labels can be joined"
        )
    if package.plan.inference.average != "logits":
        raise UsageError(
            f"{model.name} averages probabilities, and parts are joined by logits: only models "
            "imported from nnU-Net or a MONAI bundle can be joined"
        )
    if package.plan.ignore_value is not None:
        raise UsageError(f"{model.name} has a value of unannotated voxels")


def _require_fitting(first: PartModel, other: PartModel) -> None:
    """Check that two parts see the same windows of the same images."""
    a, b = first.package.plan, other.package.plan
    found = [(field, getattr(a, field), getattr(b, field)) for field in SHARED]
    fields = [key for key in type(a.preprocessing).model_fields if key != "intensity"]
    found += [(key, getattr(a.preprocessing, key), getattr(b.preprocessing, key)) for key in fields]
    found += [(key, getattr(a.inference, key), getattr(b.inference, key))
              for key in SHARED_INFERENCE]  # fmt: skip
    for field, one, two in found:
        if one != two:
            raise UsageError(
                f"{other.name} differs from {first.name} in {field} ({_text(two)} against "
                f"{_text(one)}): part models share grid, windows and channels; run the models one "
                "by one, with a `segmed predict` each"
            )
    has_other_scale = a.preprocessing.intensity != b.preprocessing.intensity
    if has_other_scale and a.preprocessing.scheme != "nnunet":
        raise UsageError(
            f"{other.name} scales intensities otherwise than {first.name}, which only models "
            "imported from nnU-Net may do"
        )


def _text(value: Any) -> str:
    if isinstance(value, tuple) and value and hasattr(value[0], "name"):
        return ", ".join(f"{one.name} ({one.modality})" for one in value)
    return str(value)


def _labels(
    models: Sequence[PartModel], label_map: Mapping[str, int] | None
) -> tuple[LabelClass, ...]:
    """Structures of all parts with their values in the joined label map."""
    owner: dict[str, str] = {}
    listed: list[LabelClass] = []
    for model in models:
        for label in model.package.plan.labels:
            if label.name in owner:
                raise UsageError(
                    f"{owner[label.name]} and {model.name} both have a structure "
                    f"{label.name!r}: part models segment different structures; average models of "
                    "the same with several --model of `segmed predict`"
                )
            owner[label.name] = model.name
            listed.append(label)
    values = dict(label_map or {name: number for number, name in enumerate(owner, start=1)})
    if missing := [name for name in owner if name not in values]:
        raise UsageError(f"the label map has no value for {', '.join(missing)}")
    if unknown := [name for name in values if name not in owner]:
        raise UsageError(
            f"the label map names {', '.join(unknown)}, which no part has: {', '.join(owner)}"
        )
    if len(set(values.values())) < len(values) or min(values.values()) < 1:
        raise UsageError("the values of a label map are different and 1 or more")
    return tuple(label.model_copy(update={"value": values[label.name]}) for label in listed)


def _plan(
    models: Sequence[PartModel],
    name: str,
    labels: Sequence[LabelClass],
    views: Sequence[tuple[Intensity, ...]],
) -> Plan:
    """The plan of the whole: that of the parts, with all structures, scales and cleaning."""
    first = models[0].package.plan
    value_of = {label.name: label.value for label in labels}
    cleaning = [_cleaning(model.package.plan, value_of) for model in models]
    rules = first.preprocessing.model_copy(
        update={"intensity": views[0], "more_intensities": tuple(views[1:])}
    )
    return first.model_copy(
        update={
            "name": name,
            "labels": tuple(labels),
            "preprocessing": rules,
            "networks": {},
            "inference": first.inference.model_copy(update=_merged(cleaning)),
            "reasons": {**first.reasons, "labels": OVERLAP_RULE},
        }
    )


def _cleaning(plan: Plan, value_of: Mapping[str, int]) -> dict[str, Any]:
    """Cleaning rules of a part, for the values of the joined label map."""
    new = {label.value: value_of[label.name] for label in plan.labels}
    rules = plan.inference
    return {
        "keep_largest": tuple(new[value] for value in rules.keep_largest),
        "keep_largest_together": tuple(
            tuple(new[value] for value in group) for group in rules.keep_largest_together
        ),
        "fill_holes": tuple(new[value] for value in rules.fill_holes),
        "remove_small": {new[value]: size for value, size in rules.remove_small.items()},
        "remove_small_ml": {new[value]: size for value, size in rules.remove_small_ml.items()},
    }


def _merged(cleaning: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rules of all parts: lists one after the other, tables as one."""
    merged = cleaning[0]
    for other in cleaning[1:]:
        merged = {
            key: {**value, **other[key]} if isinstance(value, dict) else value + other[key]
            for key, value in merged.items()
        }
    return merged


def _provenance(models: Sequence[PartModel]) -> dict[str, Any]:
    made = joined_provenance([model.package for model in models])
    licences = [model.package.provenance.get("weights_licence", "") for model in models]
    stated = list(dict.fromkeys(licence for licence in licences if licence))
    for entry, model in zip(made["members"], models, strict=True):
        entry["structures"] = [label.name for label in model.package.plan.labels]
    return {
        **made,
        "trained_by": f"{len(models)} part models, joined",
        "overlap_rule": OVERLAP_RULE,
        **({"weights_licence": "; ".join(stated)} if all(licences) else {}),
    }
