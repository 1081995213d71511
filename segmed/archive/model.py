"""Model of an archive run, as recorded in the ledger, the tables and DICOM objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segmed.inference.joined import (
    Joining,
    joined_hash,
    joined_name,
    joined_parts,
)
from segmed.io.digest import sha256_of_text
from segmed.metrics.measures import FLAGGED, PREDICTED_QUALITY, VOLUME, Distributions
from segmed.metrics.quality import ShapeRange
from segmed.metrics.training_norms import DISTRIBUTIONS, RESULTS, ranges_of
from segmed.package import ModelPackage
from segmed.quality.model import QualityModel
from segmed.quality.package_form import quality_model_in
from segmed.structures import LabelClass


@dataclass(frozen=True)
class Model:
    """A model, or an ensemble, as an archive run describes it.

    Attributes:
        hash: Hash of the package; of an ensemble, of its packages' hashes.
        name: Architecture and image set, such as `unet hippocampus`.
        labels: The structures.
        num_channels: Input channels.
        ranges: What the structures looked like in training, for quality flags; may be empty.
        norms: What the training cases looked like, for the drift watch; empty when not kept.
        spatial_dims: 2 for planes, 3 for volumes.
        is_of_planes: Its images are of one plane: structures have areas, not volumes.
        tta: Mirror images are averaged unless the user decides otherwise.
        quality: The quality model of a single package, if it has one.
    """

    hash: str
    name: str
    labels: tuple[LabelClass, ...]
    num_channels: int
    ranges: tuple[ShapeRange, ...] = ()
    norms: Distributions = field(default_factory=dict)
    spatial_dims: int = 3
    tta: bool = False
    quality: QualityModel | None = None
    is_of_planes: bool = False


def model_of(packages: Sequence[ModelPackage], joining: Joining | None = None) -> Model:
    """The identity of one package, of an ensemble in any order, or of joined models in theirs.

    Args:
        packages: The packages.
        joining: The rule of a joined label map; None for one package or an ensemble.

    Raises:
        UsageError: The models cannot be joined.
    """
    if joining is not None:
        return _joined(packages, joining)
    hashes = sorted(package.hash for package in packages)
    whole = hashes[0] if len(hashes) == 1 else sha256_of_text("\n".join(hashes))
    plan = packages[0].plan
    quality = quality_model_in(packages[0].provenance) if len(packages) == 1 else None
    norms = dict(packages[0].provenance.get(DISTRIBUTIONS, {}))
    norms.pop(FLAGGED, None)  # of the references, which have fewer flags than results
    if norms and len(packages) == 1:
        norms |= packages[0].provenance.get(RESULTS, {})
    if norms and quality is not None and quality.basis != "out_of_fold":
        norms[PREDICTED_QUALITY] = list(quality.scores)  # of an ensemble they are its members'
    names = sorted({package.architecture for package in packages})
    return Model(
        whole,
        f"{'+'.join(names)} {plan.name}",
        plan.labels,
        plan.in_channels,
        ranges_of(packages[0].provenance),
        norms,
        plan.spatial_dims,
        plan.inference.tta,
        quality,
        _is_of_planes(packages),
    )


def _joined(packages: Sequence[ModelPackage], joining: Joining) -> Model:
    """The identity of joined models.

    Each structure keeps the ranges and volumes of its own model's training. Spacing, intensities
    and the share of flags have a reference for each model, none for the whole: the drift watch
    compares volumes alone.
    """
    parts = joined_parts(packages, joining)
    ranges: list[ShapeRange] = []
    norms: Distributions = {}
    for package, part in zip(packages, parts, strict=True):
        names = {
            own.name: joined.name
            for own, joined in zip(package.plan.labels, part.labels, strict=True)
        }
        ranges += [
            known.model_copy(update={"label": names[known.label]})
            for known in ranges_of(package.provenance)
            if known.label in names
        ]
        made = package.provenance
        trained = {**made.get(DISTRIBUTIONS, {}), **made.get(RESULTS, {})}
        norms |= {
            f"{VOLUME}{names[own]}": list(trained[f"{VOLUME}{own}"])
            for own in names
            if f"{VOLUME}{own}" in trained
        }
    return Model(
        joined_hash(packages, parts),
        joined_name(packages),
        tuple(label for part in parts for label in part.labels),
        packages[0].plan.in_channels,
        tuple(ranges),
        norms,
        max(package.plan.spatial_dims for package in packages),
        all(package.plan.inference.tta for package in packages),
        is_of_planes=_is_of_planes(packages),
    )


def _is_of_planes(packages: Sequence[ModelPackage]) -> bool:
    plans = [package.plan for package in packages]
    return all(plan.spatial_dims == 2 and plan.slice_axis is None for plan in plans)


def read_packages(paths: Path | Sequence[Path]) -> tuple[ModelPackage, ...]:
    """The packages at one or several places.

    Raises:
        PackageError: One of them is damaged.
    """
    places = [paths] if isinstance(paths, Path) else list(paths)
    return tuple(ModelPackage.load(place) for place in places)
