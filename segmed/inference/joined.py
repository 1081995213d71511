"""Several models of different structures as one: a joined label map with a stated priority.

Each model prepares the image by its own plan, so the models may differ in everything but their
channels. A voxel that several models give to a structure has that of the model that was named
first. Structures are numbered 1, 2, ... in the order of the models.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from segmed.errors import UsageError, unknown_name
from segmed.geometry import Grid
from segmed.inference.label_map import Keeps
from segmed.inference.predictor import Predictor
from segmed.inference.segmentation import Segmentation
from segmed.io.digest import sha256_of_text
from segmed.metatensor import MetaTensor
from segmed.naming.words import chunks_of
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.structures import LabelClass, Maker

SameNames = Literal["refuse", "prefix"]
"""Structures of one name in two models: refused, or each with the name of its model in front."""

SAME_NAMES: tuple[SameNames, ...] = get_args(SameNames)

MOST_NAME = 60
"""Characters of the name of a joined model, which DICOM objects state."""


@dataclass(frozen=True)
class Joining:
    """The rule by which several models give one label map.

    Attributes:
        names: Name of each model, in the order of their priority.
        same_names: Structures that have one name in two models: `refuse` or `prefix`.
    """

    names: tuple[str, ...]
    same_names: SameNames = "refuse"

    def __post_init__(self) -> None:
        """Refuse what cannot be joined.

        Raises:
            UsageError: There are fewer than two models, or the rule of names is unknown.
        """
        if len(self.names) < 2:
            raise UsageError(f"a joined label map needs two or more models, got {len(self.names)}")
        if self.same_names not in SAME_NAMES:
            raise unknown_name("rule of structures with one name", self.same_names, SAME_NAMES)


@dataclass(frozen=True)
class JoinedStructures:
    """One model of a joined label map.

    Attributes:
        labels: Its structures as the joined label map has them.
        table: Value in the joined label map by the model's own value.
    """

    labels: tuple[LabelClass, ...]
    table: npt.NDArray[np.uint16]


def joined_parts(
    packages: Sequence[ModelPackage], joining: Joining
) -> tuple[JoinedStructures, ...]:
    """Structures and values of each model in the joined label map.

    Args:
        packages: The models, in the order of their priority.
        joining: The rule.

    Raises:
        UsageError: Two models have a structure of one name and the rule refuses that, or the models
            do not take the same channels.
    """
    plans = [package.plan for package in packages]
    _require_same_channels(plans, joining)
    names = _names(plans, joining)
    parts, number = [], 0
    for package, its_names in zip(packages, names, strict=True):
        maker = Maker(name=f"{package.architecture} {package.plan.name}", version=package.hash)
        labels = package.plan.labels
        values = dict.fromkeys(value for label in labels for value in (label.value, *label.values))
        found = {value: number + count for count, value in enumerate(values, start=1)}
        table = np.zeros(max(found) + 1, np.uint16)
        table[list(found)] = list(found.values())
        number += len(found)
        joined = tuple(
            LabelClass(
                name=name,
                value=found[label.value],
                code=label.code,
                region=tuple(found[value] for value in label.region),
                made_by=maker,
            )
            for label, name in zip(labels, its_names, strict=True)
        )
        parts.append(JoinedStructures(joined, table))
    return tuple(parts)


def joined_hash(packages: Sequence[ModelPackage], parts: Sequence[JoinedStructures]) -> str:
    """Hash of a joined model: other models, another priority or other names give another one."""
    names = [label.name for part in parts for label in part.labels]
    return sha256_of_text("\n".join(["joined", *(package.hash for package in packages), *names]))


def joined_name(packages: Sequence[ModelPackage]) -> str:
    """Name of a joined model, such as `unet liver > unet spleen`, first the one that wins."""
    names = [f"{package.architecture} {package.plan.name}" for package in packages]
    whole = " > ".join(names)
    if len(whole) <= MOST_NAME:
        return whole
    return f"{len(names)} models: {names[0]} first"[:MOST_NAME]


def joined_tta(packages: Sequence[ModelPackage], tta: bool | None) -> bool:
    """Use of mirror images by all the models.

    Raises:
        UsageError: The plans differ in it, and nobody decides.
    """
    if tta is not None:
        return tta
    found = {package.plan.inference.tta for package in packages}
    if len(found) > 1:
        raise UsageError(
            "some of the joined models average over mirror images and some do not: give --tta or "
            "--no-tta for all"
        )
    return found.pop()


def _require_same_channels(plans: Sequence[Plan], joining: Joining) -> None:
    """Check that all models take the same channels; names count where there are several."""
    first = [channel.name for channel in plans[0].channels]
    for plan, name in zip(plans, joining.names, strict=True):
        own = [channel.name for channel in plan.channels]
        if len(own) != len(first) or (len(own) > 1 and own != first):
            raise UsageError(
                f"model {name} takes the channels {', '.join(own)}, model {joining.names[0]} "
                f"{', '.join(first)}: models of other channels give an output each (--several each)"
            )


def _names(plans: Sequence[Plan], joining: Joining) -> list[list[str]]:
    """Name of each structure in the joined label map; words are compared, whatever the case."""
    owners: dict[tuple[str, ...], list[str]] = {}
    for plan, model in zip(plans, joining.names, strict=True):
        for label in plan.labels:
            owners.setdefault(_key(label.name), []).append(model)
    meeting = {key: models for key, models in owners.items() if len(set(models)) > 1}
    if meeting and joining.same_names == "refuse":
        words, models = next(iter(meeting.items()))
        raise UsageError(
            f"models {' and '.join(models)} both have a structure {' '.join(words)!r}: choose "
            "--same-names prefix, which puts the name of the model in front, or --several each"
        )
    return [
        [
            f"{model} {label.name}" if _key(label.name) in meeting else label.name
            for label in plan.labels
        ]
        for plan, model in zip(plans, joining.names, strict=True)
    ]


def _key(name: str) -> tuple[str, ...]:
    return tuple(chunk.casefold() for chunk in chunks_of(name))


class JoinedPredictor:
    """Predictors of different structures, used one after the other on each image.

    It is used as a `Predictor` in a pipeline. An image is prepared by each model when its turn
    comes, so that one prepared image is in memory at a time.

    Args:
        packages: The models, in the order of their priority.
        joining: The rule.
        options: Options of each `Predictor`.

    Attributes:
        packages: The models.
        joining: The rule.
        predictors: One a model.
        num_channels: Input channels.
        tta: Mirror images are averaged.
        memory_gb: Resident set that must not be exceeded, as each predictor has it.
        streams: One: the models take turns.

    Raises:
        UsageError: The models cannot be joined.
    """

    streams = 1

    def __init__(self, packages: Sequence[ModelPackage], joining: Joining, **options: Any) -> None:
        self.packages = tuple(packages)
        self.joining = joining
        self.parts = joined_parts(self.packages, joining)
        self.tta = joined_tta(self.packages, options.get("tta"))
        self.predictors = [Predictor(package, **options) for package in self.packages]
        self.num_channels = self.packages[0].plan.in_channels
        self.memory_gb = self.predictors[0].memory_gb
        highest = sum(int((part.table > 0).sum()) for part in self.parts)
        self._type = np.uint8 if highest <= 255 else np.uint16

    @property
    def labels(self) -> tuple[LabelClass, ...]:
        """Structures of the joined label map."""
        return tuple(label for part in self.parts for label in part.labels)

    def require_fitting(self, image: MetaTensor) -> None:
        """Check that an image is one for each of the models.

        Raises:
            ImageError: `other_modality` or `other_body_part`.
        """
        for predictor in self.predictors:
            predictor.require_fitting(image)

    def require_memory(
        self, grid: Grid, *, keeps_image: bool = True, keeps_probs: bool = False
    ) -> None:
        """Validate the memory of an image for each of the models, as `Predictor` does.

        Args:
            grid: Grid of the image as stored.
            keeps_image: Not asked: the image is kept until the last model has it.
            keeps_probs: Whether probabilities are requested.
        """
        for predictor in self.predictors:
            predictor.require_memory(grid, keeps_image=True, keeps_probs=keeps_probs)

    def prepare(self, image: MetaTensor) -> MetaTensor:
        """Return the image: each model prepares it when its turn comes."""
        return image

    def streams_for(self, prepared: MetaTensor) -> int:
        """One image at a time goes through the networks."""
        return self.streams

    def segment(self, prepared: MetaTensor, *, probabilities: Keeps = False) -> Segmentation:
        """Segment an image by all models, and join what they found.

        Args:
            prepared: From `prepare`.
            probabilities: Must be False: models have no common probabilities.

        Raises:
            UsageError: Probabilities are requested.
        """
        if probabilities:
            raise UsageError("joined models have no common probabilities; choose --several each")
        start = time.perf_counter()
        whole: npt.NDArray[Any] | None = None
        lost: dict[str, float] = {}
        phases: dict[str, float] = {}
        for part, predictor in zip(self.parts, self.predictors, strict=True):
            found = predictor.segment(predictor.prepare(prepared))
            own = part.table[np.asarray(found.label)].astype(self._type)
            if whole is None:
                whole = own
            else:
                lost |= _lost(own, whole, part.labels)
                np.copyto(whole, own, where=whole == 0)
            for phase, seconds in found.phases.items():
                phases[phase] = phases.get(phase, 0.0) + seconds
        assert whole is not None  # a joining has two models or more
        label = MetaTensor(torch.from_numpy(whole), affine=found.label.affine)
        seconds = time.perf_counter() - start
        return Segmentation(label, None, seconds, phases, self.labels, overpainted=lost)


def _lost(
    own: npt.NDArray[Any], painted: npt.NDArray[Any], labels: Sequence[LabelClass]
) -> Mapping[str, float]:
    """Share of each structure's voxels that models before have painted; without those of none."""
    top = max(value for label in labels for value in label.values)
    all_of = np.bincount(own.ravel(), minlength=top + 1)
    lost = np.bincount(own[painted != 0].ravel(), minlength=top + 1)
    shares = {}
    for label in labels:
        values = list(label.values)
        if lost[values].sum():
            shares[label.name] = float(lost[values].sum() / all_of[values].sum())
    return shares


AnyPredictor = Predictor | JoinedPredictor


def predictor_of(
    packages: Sequence[ModelPackage], *, joining: Joining | None = None, **options: Any
) -> AnyPredictor:
    """The predictor of one model, of an ensemble, or with a rule of a joined label map.

    Args:
        packages: The models.
        joining: The rule; None averages several models.
        options: Options of `Predictor`.

    Raises:
        UsageError: The models do not fit together.
    """
    if joining is None:
        return Predictor(packages, **options)
    return JoinedPredictor(packages, joining, **options)
