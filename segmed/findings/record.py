"""The record that every report is made from: what was measured of one segmentation, by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segmed.structures import Code, LabelClass, Maker

FLAG_MEANINGS = {
    "empty": "Structure not found",
    "border": "Structure reaches the edge of the image",
    "fragments": "Structure in several pieces",
    "missing": "Structure missing, which training cases have",
    "volume": "Volume outside the range of the training cases",
    "shape": "Shape outside the range of the training cases",
    "components": "More pieces than in the training cases",
    "cut": "Cut off by the edge of the image, unlike the training cases",
    "entropy": "Network unsure of the structure",
    "overpainted": "Partly painted over by a model of higher priority",
    "disagreement": "Networks disagree about the structure",
}
"""Quality flags in words; a flag that is not here is given by its code."""


CONDITION = "Holds for patients like those of calibration; void on drift"
"""Condition of every interval in a report; DICOM allows 64 characters."""


@dataclass(frozen=True)
class VolumeInterval:
    """Interval of the true volume of a structure.

    Attributes:
        low_ml: Lower end, in ml.
        high_ml: Upper end, in ml.
        coverage: Probability with which it contains the volume.
    """

    low_ml: float
    high_ml: float
    coverage: float

    @property
    def sentence(self) -> str:
        """The interval in words: `1.41 to 1.8 ml (90% interval)`."""
        return f"{self.low_ml:.3g} to {self.high_ml:.3g} ml ({self.coverage:.0%} interval)"

    @property
    def ends(self) -> tuple[tuple[str, str, float], tuple[str, str, float]]:
        """Code, meaning and value in ml of both ends, for coded reports."""
        name = f"end of the {self.coverage:.0%} interval of the volume"
        return (
            ("VOLUME_LOW", f"Lower {name}", self.low_ml),
            ("VOLUME_HIGH", f"Upper {name}", self.high_ml),
        )


@dataclass(frozen=True)
class Quantity:
    """Measured quantity of the structures of a segmentation.

    Attributes:
        code: SNOMED CT code.
        meaning: Its meaning.
        unit: UCUM code of the unit.
        unit_meaning: The unit in words.
    """

    code: str
    meaning: str
    unit: str
    unit_meaning: str


VOLUME = Quantity("118565006", "Volume", "mL", "milliliter")
AREA = Quantity("42798000", "Area", "{pixels}", "pixels")
"""Of images of one plane, whose pixel spacing is seldom that of the patient."""

CUBIC_MM_PER_ML = 1000.0


@dataclass(frozen=True)
class StructureFinding:
    """One structure of a segmentation.

    Attributes:
        number: Segment number in the DICOM segmentation.
        name: Name of the structure.
        code: Its coded concept; None without one.
        volume_ml: Volume in ml; 0 where nothing was found. Of a plane thousands of pixels.
        flags: Codes of its quality flags, such as `border`.
        made_by: Model that drew it, where several models drew one label map.
        interval: Interval of its true volume; None where none is stated.
    """

    number: int
    name: str
    code: Code | None
    volume_ml: float
    flags: tuple[str, ...] = ()
    made_by: Maker | None = None
    interval: VolumeInterval | None = None


@dataclass(frozen=True)
class Findings:
    """Measures of one segmentation.

    Attributes:
        structures: Its structures, in the order of their segments.
        model_name: Name of the model.
        model_version: Its version, or the hash of its package.
        is_plane: Of an image of one plane, whose structures have an area.
    """

    structures: tuple[StructureFinding, ...]
    model_name: str
    model_version: str
    is_plane: bool = False

    @property
    def quantity(self) -> Quantity:
        """The quantity that was measured."""
        return AREA if self.is_plane else VOLUME

    def value_of(self, finding: StructureFinding) -> float:
        """Value of a structure, in the unit of `quantity`."""
        if self.is_plane:
            return float(round(finding.volume_ml * CUBIC_MM_PER_ML))
        return finding.volume_ml

    def maker_of(self, finding: StructureFinding) -> Maker:
        """The model that drew a structure."""
        return finding.made_by or Maker(name=self.model_name, version=self.model_version)


def findings_of(
    labels: Sequence[LabelClass],
    volumes_ml: Mapping[str, float],
    flags: Sequence[str],
    *,
    model_name: str,
    model_version: str,
    intervals: Mapping[str, VolumeInterval] | None = None,
    is_plane: bool = False,
) -> Findings:
    """The record of one segmentation.

    Args:
        labels: The structures, in the order of their segments.
        volumes_ml: Volume of each by name.
        flags: Quality flags, `CODE:NAME`.
        model_name: Name of the model.
        model_version: Its version, or the hash of its package.
        intervals: Interval of the volume by name, where one is stated.
        is_plane: The image is of one plane: areas are stated, without intervals.
    """
    parted = [flag.partition(":") for flag in flags]
    structures = tuple(
        StructureFinding(
            number,
            entry.name,
            entry.code,
            float(volumes_ml[entry.name]),
            tuple(dict.fromkeys(code for code, _, name in parted if name == entry.name)),
            entry.made_by,
            interval=None if is_plane else (intervals or {}).get(entry.name),
        )
        for number, entry in enumerate(labels, start=1)
    )
    return Findings(structures, model_name, model_version, is_plane)


def meaning_of(flag: str) -> str:
    """A quality flag in words."""
    return FLAG_MEANINGS.get(flag, flag.replace("_", " ").capitalize())
