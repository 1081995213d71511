"""Model of an archive run, as recorded in the ledger, the tables and DICOM objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segmed.io.digest import sha256_of_text
from segmed.metrics.measures import PREDICTED_QUALITY, Distributions
from segmed.metrics.quality import ShapeRange
from segmed.metrics.training_norms import DISTRIBUTIONS, ranges_of
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


def model_of(packages: Sequence[ModelPackage]) -> Model:
    """The identity of one package or of an ensemble, in any order."""
    hashes = sorted(package.hash for package in packages)
    whole = hashes[0] if len(hashes) == 1 else sha256_of_text("\n".join(hashes))
    plan = packages[0].plan
    quality = quality_model_in(packages[0].provenance) if len(packages) == 1 else None
    norms = dict(packages[0].provenance.get(DISTRIBUTIONS, {}))
    if norms and quality is not None and quality.basis == "held_out":
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
    )


def read_packages(paths: Path | Sequence[Path]) -> tuple[ModelPackage, ...]:
    """The packages at one or several places.

    Raises:
        PackageError: One of them is damaged.
    """
    places = [paths] if isinstance(paths, Path) else list(paths)
    return tuple(ModelPackage.load(place) for place in places)
