"""Axes along which images may be mirrored: none where that would swap sides of the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segmed.errors import UsageError
from segmed.naming import SideGuess, guess_sides
from segmed.structures import LabelClass

CORRECTION = "--flips"
"""Option of `segmed plan` that states the axes."""


@dataclass(frozen=True)
class Mirroring:
    """Axes along which a mirrored image is as likely as the original.

    Attributes:
        axes: Axes of the network's input, in training and test-time augmentation alike.
        why: The reason, in one line.
        is_sure: False where the names of the labels leave it in doubt.
    """

    axes: tuple[int, ...]
    why: str
    is_sure: bool = True


def plan_mirroring(
    labels: Sequence[LabelClass],
    spatial_dims: int,
    slice_axis: int | None,
    *,
    wish: Sequence[int] | None = None,
) -> Mirroring:
    """Decide the axes of mirroring from the names of the labels; in doubt there is none.

    Args:
        labels: Structures; sides are read from words of their names and of their codes' meanings.
        spatial_dims: 2 or 3.
        slice_axis: Axis of the volume that a 2D network walks along; None for rasters.
        wish: Axes to insist on.

    Raises:
        UsageError: The wish names an axis that the network does not have.
    """
    flat = spatial_dims == 2 and slice_axis is None
    if wish is not None:
        return _as_asked(wish, spatial_dims)
    sided = sides_of(labels, flat=flat)
    if sided is not None:
        return Mirroring(
            (),
            f"none: {sided.why}; images are not mirrored where that could mix up structures; "
            f"{CORRECTION} 0 mirrors along the first axis all the same",
            sided.is_sure,
        )
    if flat:
        why = "both axes: rasters have no planned anatomical frame and no sided labels"
        return Mirroring((0, 1), f"{why}; {CORRECTION} none forbids it")
    if slice_axis == 0:
        why = "none: sagittal slices are not mirrored front to back or head to foot"
        return Mirroring((), why)
    why = "left-right only (the first axis in RAS): no label distinguishes the sides"
    return Mirroring((0,), f"{why}; {CORRECTION} none forbids it")


def sides_of(labels: Sequence[LabelClass], *, flat: bool = False) -> SideGuess | None:
    """Evidence in names and coded meanings that the labels distinguish sides.

    Args:
        labels: Structures.
        flat: Also look for directions such as `upper`, for pictures mirrored along both axes.
    """
    meanings = [label.code.meaning for label in labels if label.code is not None]
    by_name = guess_sides([label.name for label in labels], flat=flat)
    if by_name is not None and by_name.is_sure:
        return by_name
    by_code = guess_sides(meanings, flat=flat)
    return by_code if by_code is not None and by_code.is_sure else by_name or by_code


def _as_asked(wish: Sequence[int], spatial_dims: int) -> Mirroring:
    axes = tuple(sorted(set(wish)))
    if any(not 0 <= axis < spatial_dims for axis in axes):
        raise UsageError(
            f"{CORRECTION} {','.join(map(str, wish))}: the network has axes 0 to "
            f"{spatial_dims - 1}; name some of these, or none"
        )
    return Mirroring(axes, "as requested" if axes else "none, as requested")
