"""Slice positions of a DICOM file, classic or enhanced multi-frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from pydicom.dataset import Dataset

from segmed.io.dicom.elements import Elements, macro, number, numbers, words
from segmed.io.dicom.traits import Value, traits_of_file, traits_of_frame

MAX_FRAMES = 100_000
"""More frames than this in one file are taken for a damaged header."""


@dataclass(frozen=True)
class Slice:
    """One frame: its place and its scale.

    Attributes:
        frame: Index in its file.
        position: LPS mm of the centre of its first pixel; None where not stated.
        orientation: Direction cosines (LPS) along a row, then along a column; None if not stated.
        spacing: Distance between rows, then between columns, in mm; None where not stated.
        slope: Stored value to real value.
        intercept: Real value of a stored 0.
        rescale: What the file states of it: slope, intercept, and the unit of real values.
        traits: Values of the traits that distinguish volumes, in the order of `traits.TRAITS`.
        step: SpacingBetweenSlices in mm, if stated.
        thickness: SliceThickness in mm, if stated.
    """

    frame: int = 0
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    rescale: tuple[bool, bool, str] = (False, False, "")
    traits: tuple[Value, ...] = ()
    step: float | None = None
    thickness: float | None = None

    @property
    def is_scaled(self) -> bool:
        """Return whether real values can be had: the stated rescaling is finite, and not by 0."""
        return math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope != 0


def _scaling(dataset: Elements, name: str, absent: float) -> float:
    """Return a rescale value; NaN if the stated one is invalid."""
    found = number(dataset, name)
    if found is not None:
        return found
    return math.nan if _is_stated(dataset, name) else absent


def _stated_rescale(dataset: Elements) -> tuple[bool, bool, str]:
    """Return whether slope and intercept are stated, and the unit of what they give."""
    units = words(dataset, "RescaleType")
    return (
        _is_stated(dataset, "RescaleSlope"),
        _is_stated(dataset, "RescaleIntercept"),
        units[0].upper() if units else "",
    )


def _is_stated(dataset: Elements, name: str) -> bool:
    """Return whether an element is present and not empty, with a valid value or not."""
    try:
        return name in dataset and dataset.get(name) not in (None, "")
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return True


def slices_of(dataset: Elements) -> tuple[Slice, ...]:
    """The frames of one file, in file order.

    A multi-frame file without functional groups gives frames without positions.

    Source:
        DICOM PS3.3 C.7.6.2 (image plane), C.7.6.16 (multi-frame functional groups).
    """
    if "PerFrameFunctionalGroupsSequence" in dataset:
        return _enhanced(dataset)
    frames = int(number(dataset, "NumberOfFrames") or 1)
    if frames > 1:
        return tuple(Slice(frame=index) for index in range(min(frames, MAX_FRAMES)))
    whole = _Places(dataset, dataset, dataset, dataset)
    return (_slice(whole, frame=0, traits=traits_of_file(dataset)),)


def _enhanced(dataset: Elements) -> tuple[Slice, ...]:
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    frames = []
    for index, group in enumerate(dataset.get("PerFrameFunctionalGroupsSequence")[:MAX_FRAMES]):
        groups = (group, shared[0])
        places = _Places(
            position=macro(groups, "PlanePositionSequence"),
            orientation=macro(groups, "PlaneOrientationSequence"),
            measures=macro(groups, "PixelMeasuresSequence"),
            values=macro(groups, "PixelValueTransformationSequence"),
        )
        frames.append(_slice(places, frame=index, traits=traits_of_frame(groups)))
    return tuple(frames)


class _Places(NamedTuple):
    """Data sets that contain the position, orientation, measures and value scale of a frame."""

    position: Elements
    orientation: Elements
    measures: Elements
    values: Elements


def _slice(places: _Places, *, frame: int, traits: tuple[Value, ...]) -> Slice:
    return Slice(
        frame=frame,
        position=numbers(places.position, "ImagePositionPatient", 3),
        orientation=numbers(places.orientation, "ImageOrientationPatient", 6),
        spacing=numbers(places.measures, "PixelSpacing", 2),
        slope=_scaling(places.values, "RescaleSlope", 1.0),
        intercept=_scaling(places.values, "RescaleIntercept", 0.0),
        rescale=_stated_rescale(places.values),
        traits=traits,
        step=number(places.measures, "SpacingBetweenSlices"),
        thickness=number(places.measures, "SliceThickness"),
    )
