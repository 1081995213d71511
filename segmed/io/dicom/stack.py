"""Order slices along their normal and prove that they form one even stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmed.geometry import Affine
from segmed.io.dicom.frames import Slice
from segmed.io.dicom.traits import difference_at_one_place

SAME_POSITION_MM = 1e-3
STEP_TOLERANCE = 0.03
"""Largest relative difference of a slice step from the usual one."""

STEP_TOLERANCE_MM = 0.02
"""The same in mm, for positions that were written with two decimals."""

DRIFT_TOLERANCE = 0.1
"""Largest distance, in steps, of a slice from its place in the even stack."""

LATERAL_TOLERANCE_MM = 0.05
"""Largest distance of a slice from the normal through the first one."""

LATERAL_TOLERANCE = 2e-3
"""The same per mm of height: the tangent of the tilt."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Placed = tuple[tuple[Path, Slice], ...]


class StackFault(Exception):  # noqa: N818 - a verdict that travels as an exception, not an error
    """Reason why slices form no even stack; the audit refuses the series with it."""

    def __init__(self, reason: str, message: str, offending: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.offending = tuple(dict.fromkeys(offending))


def stack(
    pairs: Sequence[tuple[Path, Slice]],
) -> tuple[Affine, tuple[float, ...], Placed]:
    """Sort slices along their normal.

    Args:
        pairs: File and slice; all have positions and one orientation and pixel spacing.

    Returns:
        The affine from (column, row, slice) to RAS+ mm, the spacing of these axes in mm, and the
        pairs in order.

    Raises:
        StackFault: The slices are not one even stack.

    Source:
        DICOM PS3.3 C.7.6.2.1.1, eq. C.7.6.2.1-1.
    """
    row, column, normal = _directions(pairs)
    positions = np.asarray([part.position for _, part in pairs], dtype=np.float64)  # [n, 3]
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    ordered = tuple(pairs[index] for index in order)
    positions, heights = positions[order], heights[order]
    steps = np.diff(heights)
    if (steps < SAME_POSITION_MM).any():
        raise _repeated(ordered, heights)
    if len(ordered) > 1:
        _check_tilt(ordered, positions, normal)
        _check_steps(ordered, heights, steps)
        step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    else:
        step = normal * _stated_thickness(ordered[0][1])
    spacing = ordered[0][1].spacing or (1.0, 1.0)  # between rows, between columns
    affine = np.eye(4)
    affine[:3, 0] = row * spacing[1]
    affine[:3, 1] = column * spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    edges = (float(spacing[1]), float(spacing[0]), float(np.linalg.norm(step)))
    return LPS_TO_RAS @ affine, edges, ordered


def _directions(
    pairs: Sequence[tuple[Path, Slice]],
) -> tuple[npt.NDArray[np.float64], ...]:
    cosines = np.asarray(pairs[0][1].orientation, dtype=np.float64)
    row, column = cosines[:3], cosines[3:]
    normal = np.cross(row, column)
    return row, column, normal / np.linalg.norm(normal)


def _stated_thickness(part: Slice) -> float:
    """The slice distance of a single slice, as far as its file states one; else 1 mm."""
    return next((abs(v) for v in (part.step, part.thickness) if v), 1.0)


def _repeated(ordered: Placed, heights: npt.NDArray[np.float64]) -> StackFault:
    """The fault of slices that share a position: several volumes in one, or stray doubles."""
    groups: list[list[int]] = [[0]]
    for index in range(1, len(heights)):
        if heights[index] - heights[index - 1] < SAME_POSITION_MM:
            groups[-1].append(index)
        else:
            groups.append([index])
    doubles = [ordered[i][0] for group in groups if len(group) > 1 for i in group]
    counts = {len(group) for group in groups}
    if len(counts) > 1:
        where = next(heights[group[0]] for group in groups if len(group) > 1)
        return StackFault(
            "duplicate_slice",
            f"{sum(len(group) > 1 for group in groups)} of {len(groups)} positions are taken more "
            f"than once (first at {where:.1f} mm)",
            doubles,
        )
    volumes = f"{counts.pop()} slices at each of {len(groups)} positions"
    named = difference_at_one_place([ordered[i][1].traits for i in groups[0]])
    if named is not None:
        return StackFault(named[0], f"{volumes}: {named[1]}", doubles)
    if len(groups) > 1:
        return StackFault(
            "several_volumes",
            f"{volumes}: several volumes, and no known element distinguishes them",
            doubles,
        )
    return StackFault("duplicate_slice", volumes, doubles)


def _check_tilt(
    ordered: Placed, positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]
) -> None:
    offsets = positions - positions[0]
    heights = offsets @ normal
    lateral = offsets - heights[:, None] * normal  # [n, 3], in the plane of the slices
    allowed = LATERAL_TOLERANCE_MM + LATERAL_TOLERANCE * heights
    aside = np.linalg.norm(lateral, axis=1)
    if (aside <= allowed).all():
        return
    straight = heights[:, None] / heights[-1] * lateral[-1]
    bend = np.linalg.norm(lateral - straight, axis=1)
    if (bend <= allowed).all():
        degrees = np.degrees(np.arctan2(aside[-1], heights[-1]))
        raise StackFault(
            "tilt",
            f"the stack leans by {degrees:.1f} degrees (gantry tilt): resample it upright first",
            [path for path, _ in ordered],
        )
    odd = [ordered[i][0] for i in np.flatnonzero(aside > allowed)]
    raise StackFault(
        "shifted_slices", f"{len(odd)} slices are up to {aside.max():.2f} mm beside the stack", odd
    )


def _check_steps(
    ordered: Placed, heights: npt.NDArray[np.float64], steps: npt.NDArray[np.float64]
) -> None:
    expected = _usual_step(ordered, steps)
    allowed = max(STEP_TOLERANCE * expected, STEP_TOLERANCE_MM)
    odd = np.abs(steps - expected) > allowed
    even = heights[0] + (heights[-1] - heights[0]) * np.arange(len(heights)) / len(steps)
    if not odd.any() and (np.abs(heights - even) <= DRIFT_TOLERANCE * expected).all():
        return
    times = np.rint(steps / expected)
    gaps = odd & (times >= 2) & (np.abs(steps - times * expected) <= allowed * times)
    where = int(np.argmax(odd)) if odd.any() else int(np.argmax(np.abs(steps - expected)))
    span = (
        f"slice gap of {steps[where]:.2f} mm between positions {heights[where]:.1f} and "
        f"{heights[where + 1]:.1f} mm (expected {expected:.2f} mm)"
    )
    beside = [ordered[where][0], ordered[where + 1][0]]
    if odd.any() and (gaps == odd).all():
        missing = int((times[gaps] - 1).sum())
        what = "a slice is missing" if missing == 1 else f"{missing} slices are missing"
        raise StackFault("missing_slice", f"{span}: {what}", beside)
    raise StackFault("uneven_slices", f"{span}: the slices are uneven", beside)


def _usual_step(ordered: Placed, steps: npt.NDArray[np.float64]) -> float:
    """The most frequent step; the smaller where two are as frequent.

    Two equal steps prove it; with one step alone there is nothing to compare.
    """
    best, votes = float(steps.min()), 0
    for candidate in np.sort(steps):
        near = np.abs(steps - candidate) <= max(STEP_TOLERANCE * candidate, STEP_TOLERANCE_MM)
        if int(near.sum()) > votes:
            best, votes = float(np.median(steps[near])), int(near.sum())
    return best
