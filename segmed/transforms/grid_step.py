"""Transforms that change the grid of an image and record how, as MONAI's `applied_operations`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segmed.errors import GeometryError, UsageError
from segmed.geometry import Grid
from segmed.io.read import grid_of
from segmed.metatensor import InvertibleTransform, MetaTensor
from segmed.one_line import OneLine
from segmed.transforms.grid_transform import GridTransform, turned
from segmed.transforms.taken import taken_image

OPERATION_ID = "none"
"""Id of recorded operations: MONAI matches them by their order, so that an equal chain inverts what
another process, or another instance, prepared."""

GRID_KEY, UNMIRRORED_KEY = "grid_transform", "unmirrored"
"""Keys of the record of an operation, below `extra_info`."""


KEEPS_GRID = frozenset({"ClassIndices"})
"""Recorded transforms of this package that change values alone."""


@dataclass(frozen=True)
class Placement:
    """Place of an image on the way from its stored grid to that of the network.

    Attributes:
        transform: From the stored grid to the grid of the image.
        unmirrored: Turned axes that `Reorient(mirror=False)` left to be mirrored by
            `SplineSpacing`.
    """

    transform: GridTransform
    unmirrored: tuple[bool, ...]


class GridStep(OneLine, InvertibleTransform):
    """Invertible transform of a grid that records its grid transform.

    Args:
        lazy: Refused: MONAI would replace the steps by one interpolation of its own.
    """

    def __init__(self, *, lazy: bool = False) -> None:
        name = type(self).__name__
        if lazy:
            raise UsageError(
                f"{name} cannot be lazy: MONAI would merge it into one interpolation of its own, "
                "with other values; leave lazy=False"
            )

    def begun(self, image: Tensor) -> tuple[MetaTensor, Placement]:
        """Return the image as a MetaTensor, and its placement.

        Raises:
            UsageError: Its shape is not that of an image, or operations are pending, so that its
                voxels are not where its affine says.
        """
        taken = taken_image(image, self)
        if pending := taken.pending_operations:
            names = ", ".join(str(one.get("class", "?")) for one in pending)
            raise UsageError(
                f"{type(self).__name__} needs an image whose transforms have been applied, pending "
                f"are {names}: apply them first, or make the chain with lazy=False"
            )
        place = placement_of(taken)
        if place.transform.shape == place.transform.cropped_shape:
            return taken, place
        return taken, unmoved(grid_of(taken))  # a resampled grid is the start of what follows

    def recorded(self, image: MetaTensor, voxels: Tensor, place: Placement) -> MetaTensor:
        """Return the new voxels with their affine, the metadata and this operation."""
        size = tuple(int(n) for n in image.shape[1:])
        extra = {GRID_KEY: place.transform.record(), UNMIRRORED_KEY: list(place.unmirrored)}
        meta = {key: value for key, value in image.meta.items() if key != "affine"}
        return MetaTensor(
            voxels,
            affine=torch.from_numpy(place.transform.grid.affine_ras),
            meta=meta,
            applied_operations=[*image.applied_operations, operation(self, size, extra)],
        )

    def taken_back(self, image: MetaTensor) -> tuple[MetaTensor, Placement, Placement]:
        """Undo the record of this operation.

        Returns:
            The image without the record, its placement, and the placement that it comes from.

        Raises:
            GeometryError: The image has another grid than this transform gave.
        """
        after = placement_of(image)
        if tuple(image.shape[1:]) != after.transform.shape:
            raise GeometryError(
                f"{type(self).__name__} gave a grid of {after.transform.shape} voxels, the map has "
                f"{tuple(image.shape[1:])}: invert a map on the prepared grid",
                reason="shape",
            )
        bare = without_last(self, image)
        before = recorded_placement(bare)
        if before is None or before.transform.shape != before.transform.cropped_shape:
            before = unmoved(after.transform.grid_in)
        return bare, after, before


def operation(
    step: InvertibleTransform, size: tuple[int, ...], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an entry of MONAI's `applied_operations`.

    Args:
        step: The transform.
        size: Voxels along each axis before it.
        extra: Further facts, in types that can be collated.
    """
    info: dict[str, Any] = dict(step.get_transform_info())
    return {**info, "id": OPERATION_ID, "orig_size": size, "lazy": False, "extra_info": dict(extra)}


def without_last(step: InvertibleTransform, image: MetaTensor) -> MetaTensor:
    """Return the image without its last operation, which must be one of this transform.

    Raises:
        UsageError: The last operation is that of another transform.
    """
    done = image.applied_operations
    name = type(step).__name__
    last = done[-1].get("class") if done else None
    if last != name:
        raise UsageError(
            f"the last transform of the image is {last or 'none'}, not {name}: invert the steps of "
            "a chain in reverse order"
        )
    meta = {key: value for key, value in image.meta.items() if key != "affine"}
    return MetaTensor(
        image.as_tensor(), affine=image.affine, meta=meta, applied_operations=list(done[:-1])
    )


def placement_of(image: MetaTensor) -> Placement:
    """Return the placement of an image by its recorded operations; its own grid without any."""
    return recorded_placement(image) or unmoved(grid_of(image))


def recorded_placement(image: MetaTensor) -> Placement | None:
    """Return the placement that the last operation on the grid recorded, if it was a `GridStep`."""
    for done in reversed(image.applied_operations):
        extra = done.get("extra_info") or {}
        if GRID_KEY in extra:
            transform = GridTransform.from_record(extra[GRID_KEY])
            return Placement(transform, tuple(bool(flag) for flag in extra[UNMIRRORED_KEY]))
        if done.get("class") not in KEEPS_GRID:
            return None
    return None


def unmoved(grid: Grid) -> Placement:
    """Return the placement of an image on the grid that it is stored on."""
    return Placement(turned(grid, ""), (False,) * len(grid.shape))


def placed_back(image: MetaTensor, voxels: Tensor, place: Placement) -> MetaTensor:
    """Return voxels on an earlier grid, with the metadata and operations of the image.

    Args:
        image: The map that was inverted, from `GridStep.taken_back`.
        voxels: `[K, *spatial]` on the earlier grid.
        place: Placement of the earlier grid.
    """
    meta = {key: value for key, value in image.meta.items() if key != "affine"}
    return MetaTensor(
        voxels,
        affine=torch.from_numpy(place.transform.grid.affine_ras),
        meta=meta,
        applied_operations=list(image.applied_operations),
    )
