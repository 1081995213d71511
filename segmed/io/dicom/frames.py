"""Where each slice of a DICOM file lies, for classic files and for enhanced multi-frame ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydicom.dataset import Dataset

MAX_FRAMES = 100_000
"""More frames than this in one file are taken for a damaged header."""

_TIMES = ("TemporalPositionIdentifier", "AcquisitionNumber", "AcquisitionTime", "TriggerTime",
          "ContentTime")  # fmt: skip


class Elements(Protocol):
    """Elements by keyword: a pydicom data set, or the dictionary of a quick read."""

    def get(self, key: str, /) -> Any:
        """The value, or None."""
        ...

    def __contains__(self, key: Any, /) -> bool: ...


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
        echo: Echo time in ms, if stated.
        b_value: Diffusion weighting in s/mm2, if stated.
        time: Values that tell time points apart.
        step: SpacingBetweenSlices in mm, if stated.
        thickness: SliceThickness in mm, if stated.
    """

    frame: int = 0
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    echo: float | None = None
    b_value: float | None = None
    time: tuple[str, ...] = ()
    step: float | None = None
    thickness: float | None = None

    @property
    def is_scaled(self) -> bool:
        """Whether real values can be had: the stated rescaling is finite, and not by 0."""
        return math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope != 0


def numbers(dataset: Elements, name: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers of an element, or None where it holds anything else."""
    try:
        value = dataset.get(name)
        if value is None or value == "":
            return None
        parts = [float(v) for v in (value if _is_multi(value) else [value])]
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return None
    if len(parts) < count or not np.isfinite(parts[:count]).all():
        return None
    return tuple(parts[:count]) if count == 1 or len(parts) == count else None


def _word(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _is_multi(value: Any) -> bool:
    return not isinstance(value, str | bytes | int | float) and hasattr(value, "__iter__")


def _number(dataset: Elements, name: str) -> float | None:
    found = numbers(dataset, name, 1)
    return None if found is None else found[0]


def _scaling(dataset: Elements, name: str, absent: float) -> float:
    """A number of the rescaling; NaN where one is stated that is none."""
    found = _number(dataset, name)
    if found is not None:
        return found
    try:
        is_empty = name not in dataset or dataset.get(name) is None or dataset.get(name) == ""
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        is_empty = False
    return absent if is_empty else math.nan


def slices_of(dataset: Elements) -> tuple[Slice, ...]:
    """The frames of one file, in file order.

    A multi-frame file without functional groups gives frames without positions.

    Source:
        DICOM PS3.3 C.7.6.2 (image plane), C.7.6.16 (multi-frame functional groups).
    """
    if "PerFrameFunctionalGroupsSequence" in dataset:
        return _enhanced(dataset)
    frames = int(_number(dataset, "NumberOfFrames") or 1)
    if frames > 1:
        return tuple(Slice(frame=index) for index in range(min(frames, MAX_FRAMES)))
    return (
        Slice(
            position=numbers(dataset, "ImagePositionPatient", 3),
            orientation=numbers(dataset, "ImageOrientationPatient", 6),
            spacing=numbers(dataset, "PixelSpacing", 2),
            slope=_scaling(dataset, "RescaleSlope", 1.0),
            intercept=_scaling(dataset, "RescaleIntercept", 0.0),
            echo=_number(dataset, "EchoTime"),
            b_value=_number(dataset, "DiffusionBValue"),
            time=tuple(_word(dataset.get(name)) for name in _TIMES),
            step=_number(dataset, "SpacingBetweenSlices"),
            thickness=_number(dataset, "SliceThickness"),
        ),
    )


def _enhanced(dataset: Elements) -> tuple[Slice, ...]:
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    frames = []
    for index, group in enumerate(dataset.get("PerFrameFunctionalGroupsSequence")[:MAX_FRAMES]):
        places = (group, shared[0])
        measures = _macro(places, "PixelMeasuresSequence")
        values = _macro(places, "PixelValueTransformationSequence")
        content = _macro(places, "FrameContentSequence")
        position = _macro(places, "PlanePositionSequence")
        orientation = _macro(places, "PlaneOrientationSequence")
        frames.append(
            Slice(
                frame=index,
                position=numbers(position, "ImagePositionPatient", 3),
                orientation=numbers(orientation, "ImageOrientationPatient", 6),
                spacing=numbers(measures, "PixelSpacing", 2),
                slope=_scaling(values, "RescaleSlope", 1.0),
                intercept=_scaling(values, "RescaleIntercept", 0.0),
                echo=_number(_macro(places, "MREchoSequence"), "EffectiveEchoTime"),
                b_value=_number(_macro(places, "MRDiffusionSequence"), "DiffusionBValue"),
                time=(str(content.get("TemporalPositionIndex", "")),),
                step=_number(measures, "SpacingBetweenSlices"),
                thickness=_number(measures, "SliceThickness"),
            )
        )
    return tuple(frames)


def _macro(places: tuple[Dataset, Dataset], name: str) -> Dataset:
    """A functional group: the frame's own, else the shared one, else an empty one."""
    for place in places:
        items = place.get(name)
        if items:
            return items[0]
    return Dataset()
