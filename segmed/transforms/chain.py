"""The one chain from an image as stored to the network's input, and the one way back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from segmed.doors import checked
from segmed.errors import ImageError, SegmedError, UsageError
from segmed.geometry import Grid
from segmed.io.read import label_on_grid
from segmed.metatensor import Compose, MetaTensor, Transform
from segmed.one_line import OneLine
from segmed.plan.schema import Plan
from segmed.transforms.crop import CropBox
from segmed.transforms.dictionary import (
    ClassIndicesd,
    ClipChannelsd,
    CorrectBiasd,
    CropNonzerod,
    KnownLabelsd,
    Reorientd,
    ScaleChannelsd,
    SplineSpacingd,
)
from segmed.transforms.grid_step import placement_of
from segmed.transforms.grid_transform import GridTransform, Prepared, resampled, turned
from segmed.transforms.intensity import with_voxels
from segmed.transforms.inverse import ProbsBox, Slab, inverse_boxes
from segmed.transforms.labels import ClassIndices, KnownLabels
from segmed.transforms.nnunet_rules import resampled_for_nnunet, turned_for_nnunet
from segmed.transforms.nnunet_steps import (
    NnUNetSpacing,
    NnUNetSpacingd,
    OrderAxes,
    OrderAxesd,
    ScaleCroppedd,
)
from segmed.transforms.reorient import Reorient
from segmed.transforms.spline_spacing import SplineSpacing

IMAGE, LABEL = "image", "label"
"""Entries of a row."""


class PreparationChain(OneLine, Compose):
    """The chain of a plan: a MONAI `Compose` whose errors are those of its steps.

    Args:
        plan: The plan of the training set.
        read: First step, from paths to images, where the rows have paths.
    """

    def __init__(self, plan: Plan, read: Transform | None = None) -> None:
        steps = _steps(plan)
        super().__init__(steps if read is None else [read, *steps])
        self.plan = plan
        self.read = read

    def __call__(self, input_: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return a row with the network's input.

        Args:
            input_: `image`, `[C, *spatial]` in storage order with its RAS+ affine; and `label`,
                integers `[1, *spatial]` on the same grid, where there is one.
            args: As for `Compose`.
            kwargs: As for `Compose`.

        Returns:
            The row with `image` float32 `[C, *target]` and `label`, class indices `[1, *target]`.

        Raises:
            ImageError: The image has other channels than the plan or needs more memory than is free
                (`out_of_memory`), or the label has a value that is not a label of the plan.
            GeometryError: The image has another number of axes, an affine without directions, or a
                spacing that gives it a size out of all bounds; or the label has another grid.
        """
        if not (args or kwargs or self.lazy or self.overrides or _has_pending(input_)):
            # MONAI's own loop does the same, and imports all of MONAI for it: two CPU seconds.
            row: dict[str, Any] = input_  # type: ignore[assignment]  # the first step checks it
            for step in self.transforms:
                row = step(row)
            return row
        with _errors_of_steps():
            done: dict[str, Any] = super().__call__(input_, *args, **kwargs)
        return done

    def inverse(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row whose maps are on the grid of the stored image.

        Voxels that the chain cropped away are 0 in every channel. Intensities are not scaled back.

        Args:
            data: Maps `[K, *target]` with the operations of the prepared image, such as predictions
                under `image`, and class indices under `label`.

        Raises:
            GeometryError: A map is not on the prepared grid.
            UsageError: The last operation of a map is not of this chain.
        """
        with _errors_of_steps():
            done: dict[str, Any] = super().inverse(data)
        return done

    def inverse_slabs(
        self, slabs: Iterable[Slab], transform: GridTransform, buffer_dim: int
    ) -> Iterator[ProbsBox]:
        """Bring slabs of the prepared grid to the stored grid as they come; see `inverse_boxes`."""
        return inverse_boxes(slabs, transform, buffer_dim)


def _has_pending(row: Mapping[str, Any]) -> bool:
    """Return whether operations of MONAI are still to be applied to an entry of a row."""
    entries = row.values() if isinstance(row, Mapping) else ()
    return any(getattr(entry, "pending_operations", None) for entry in entries)


@contextmanager
def _errors_of_steps() -> Iterator[None]:
    """Raise the error of a step instead of MONAI's `RuntimeError` around it."""
    try:
        yield
    except RuntimeError as error:
        cause = error.__cause__
        if isinstance(cause, SegmedError | MemoryError):
            raise cause from cause.__cause__
        raise


@checked()
def preparation(plan: Plan, read: Transform | None = None) -> PreparationChain:
    """Return the chain from images as stored to the network's input.

    The cache, training, `predict`, the archive, the served model and exported bundles run it. Its
    steps: bias field, orientation, crop, clip, resampling, scale. Images that already have the
    target's spacing are not interpolated.

    Args:
        plan: The plan of the training set.
        read: First step for rows of paths, such as `ReadCase(plan.in_channels, plan.labels)`.
    """
    return PreparationChain(plan, read)


def _steps(plan: Plan) -> list[Transform]:
    rules, both, missing = plan.preprocessing, (IMAGE, LABEL), {"allow_missing_keys": True}
    values = plan.encoding.stored_values
    steps: list[Transform] = [
        ImageOfPlan(plan),
        KnownLabelsd(LABEL, values, image_key=IMAGE, **missing),
    ]
    if rules.bias_correction:
        has_field = [channel.modality != "CT" for channel in plan.channels]
        steps.append(CorrectBiasd(IMAGE, has_field))
    if rules.scheme == "nnunet" and not rules.orientation:
        steps.append(OrderAxesd(both, rules.axes, **missing))
    else:
        steps.append(Reorientd(both, rules.orientation, mirror=False, **missing))
    if rules.crop_nonzero:
        steps.append(CropNonzerod(both, source_key=IMAGE, **missing))
    if rules.scheme == "nnunet":
        return [
            *steps,
            ScaleCroppedd(IMAGE, rules.intensity, rules.more_intensities),
            NnUNetSpacingd(both, rules, orders=(3, 0), **missing),
            ClassIndicesd(LABEL, values, **missing),
        ]
    return [
        *steps,
        ClipChannelsd(IMAGE, rules.intensity),
        SplineSpacingd(both, rules.spacing_mm, order=(image_orders(plan), 0), **missing),
        ScaleChannelsd(IMAGE, rules.intensity, in_place=True),
        ClassIndicesd(LABEL, values, are_known=True, **missing),
    ]


class ImageOfPlan(OneLine, Transform):
    """Check the channels of a row's image, and convert its voxels to float32.

    Args:
        plan: The plan of the training set.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row.

        Raises:
            ImageError: The image has other channels than the plan (`channels`).
        """
        image = _entry(data, IMAGE)
        if LABEL in data:
            _entry(data, LABEL)
        require_channels(image, self.plan)
        return {**data, IMAGE: with_voxels(image, image.as_tensor().to(torch.float32))}


def _entry(row: Mapping[str, Any], key: str) -> MetaTensor:
    """Return an entry of a row, which must be a MetaTensor.

    Raises:
        UsageError: It is missing or of another type.
    """
    if not isinstance(row, Mapping) or key not in row:
        found = ", ".join(map(str, row)) if isinstance(row, Mapping) else f"a {type(row).__name__}"
        raise UsageError(
            f"the chain takes a dictionary with the entry {key!r}, got {found or 'an empty one'}"
        )
    if not isinstance(row[key], MetaTensor):
        raise UsageError(
            f"the chain takes {key!r} as a MetaTensor, got a {type(row[key]).__name__}; for paths "
            "begin it with a reading step: preparation(plan, ReadCase(channels))"
        )
    entry: MetaTensor = row[key]
    return entry


def target_transform(grid: Grid, plan: Plan) -> GridTransform:
    """Return the transform from the grid of an image as stored to that of the network, uncropped.

    Args:
        grid: Grid of the image.
        plan: The plan of the training set.

    Raises:
        GeometryError: The image has other axes than the plan, or would have an absurd size.
    """
    rules = plan.preprocessing
    if rules.scheme == "nnunet":
        return resampled_for_nnunet(turned_for_nnunet(grid, rules), rules)
    return resampled(turned(grid, rules.orientation), rules.spacing_mm)


def image_orders(plan: Plan) -> tuple[int, ...]:
    """Spline order along each axis of the target."""
    rules = plan.preprocessing
    return tuple(
        1 if axis == rules.anisotropic_axis else rules.image_order
        for axis in range(len(rules.spacing_mm))
    )


def class_values(plan: Plan) -> list[int]:
    """The label value of each class index, background (0) first."""
    return list(plan.encoding.values)


def require_channels(image: MetaTensor, plan: Plan) -> None:
    """Refuse an image with other channels than the plan's.

    Raises:
        ImageError: `channels`.
    """
    if image.shape[0] != plan.in_channels:
        raise ImageError(
            f"the image has {image.shape[0]} channels, the plan {plan.in_channels} "
            f"({', '.join(channel.name for channel in plan.channels)}): give one a channel",
            reason="channels",
        )


def prepared_of(image: MetaTensor) -> Prepared:
    """Return the network's input and its grid transform from an image that a chain has prepared.

    Args:
        image: `[C, *target]` with the operations of the chain.
    """
    return Prepared(image.as_tensor(), placement_of(image).transform)


def prepare(image: MetaTensor, plan: Plan) -> Prepared:
    """Run the chain of a plan on one image.

    Args:
        image: `[C, *spatial]` in storage order, with its RAS+ affine.
        plan: The plan of the training set.

    Raises:
        ImageError: As `PreparationChain`.
        GeometryError: As `PreparationChain`.
    """
    return prepared_of(preparation(plan)({IMAGE: image})[IMAGE])


def prepare_label(label: MetaTensor, prepared_like: Prepared, plan: Plan) -> Tensor:
    """Run the steps of labels on one label map whose image has been prepared already.

    Args:
        label: `[1, *spatial]` integers on the grid of the image as stored, up to the order and
            direction of the axes.
        prepared_like: The image as `prepare` gave it.
        plan: The plan of the training set.

    Returns:
        `[*target]` of the type that `index_dtype` gives: the class indices of the plan's encoding,
        0 for background, 1, 2, ... in the order of `plan.labels`, then that of voxels that nobody
        annotated; no new values arise.

    Raises:
        GeometryError: The label is on another grid than the image.
        ImageError: It has a value that is not a label of the plan.
    """
    transform, rules = prepared_like.transform, plan.preprocessing
    values = plan.encoding.stored_values
    label = label_on_grid(label, transform.grid_in)
    box = tuple(transform.kept(turned_axis) for turned_axis in range(len(transform.axes)))
    turn: Transform = Reorient(rules.orientation, mirror=False)
    spacing: Transform = SplineSpacing(rules.spacing_mm, order=0)
    if rules.scheme == "nnunet":
        turn = turn if rules.orientation else OrderAxes(rules.axes)
        spacing = NnUNetSpacing(rules, order=0)
    indices_of = ClassIndices(values, are_known=True)
    steps = (KnownLabels(values), turn, CropBox(box), spacing, indices_of)
    done = label
    for step in steps:
        done = step(done)
    indices: Tensor = done.as_tensor()[0]
    return indices
