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
class StructureFinding:
    """One structure of a segmentation.

    Attributes:
        number: Segment number in the DICOM segmentation.
        name: Name of the structure.
        code: Its coded concept; None without one.
        volume_ml: Volume in ml; 0 where nothing was found.
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
    """

    structures: tuple[StructureFinding, ...]
    model_name: str
    model_version: str

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
) -> Findings:
    """The record of one segmentation.

    Args:
        labels: The structures, in the order of their segments.
        volumes_ml: Volume of each by name.
        flags: Quality flags, `CODE:NAME`.
        model_name: Name of the model.
        model_version: Its version, or the hash of its package.
        intervals: Interval of the volume by name, where one is stated.
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
            interval=(intervals or {}).get(entry.name),
        )
        for number, entry in enumerate(labels, start=1)
    )
    return Findings(structures, model_name, model_version)


def meaning_of(flag: str) -> str:
    """A quality flag in words."""
    return FLAG_MEANINGS.get(flag, flag.replace("_", " ").capitalize())
