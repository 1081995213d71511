"""Slice positions of a DICOM file, classic or enhanced multi-frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """Return whether an element is there and not empty, be its value sound or not."""
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
    return (
        Slice(
            position=numbers(dataset, "ImagePositionPatient", 3),
            orientation=numbers(dataset, "ImageOrientationPatient", 6),
            spacing=numbers(dataset, "PixelSpacing", 2),
            slope=_scaling(dataset, "RescaleSlope", 1.0),
            intercept=_scaling(dataset, "RescaleIntercept", 0.0),
            rescale=_stated_rescale(dataset),
            traits=traits_of_file(dataset),
            step=number(dataset, "SpacingBetweenSlices"),
            thickness=number(dataset, "SliceThickness"),
        ),
    )


def _enhanced(dataset: Elements) -> tuple[Slice, ...]:
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    frames = []
    for index, group in enumerate(dataset.get("PerFrameFunctionalGroupsSequence")[:MAX_FRAMES]):
        places = (group, shared[0])
        measures = macro(places, "PixelMeasuresSequence")
        values = macro(places, "PixelValueTransformationSequence")
        position = macro(places, "PlanePositionSequence")
        orientation = macro(places, "PlaneOrientationSequence")
        frames.append(
            Slice(
                frame=index,
                position=numbers(position, "ImagePositionPatient", 3),
                orientation=numbers(orientation, "ImageOrientationPatient", 6),
                spacing=numbers(measures, "PixelSpacing", 2),
                slope=_scaling(values, "RescaleSlope", 1.0),
                intercept=_scaling(values, "RescaleIntercept", 0.0),
                rescale=_stated_rescale(values),
                traits=traits_of_frame(places),
                step=number(measures, "SpacingBetweenSlices"),
                thickness=number(measures, "SliceThickness"),
            )
        )
    return tuple(frames)
