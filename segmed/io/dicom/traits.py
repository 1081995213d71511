"""Traits of an image that distinguish the volumes of one series: echo, b-value, kernel and so on.

One table for classic and for enhanced files. A series in which such a trait has several values is
several volumes, also where every position has one image only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydicom.dataset import Dataset

from segmed.io.dicom.elements import Elements, macro, numbers, words

Value = str | float | None
Rule = Literal["always", "repeated", "shared", "noted"]

NO_AGENT = frozenset({
    "", "NO", "NONE", "N", "0", "NO CONTRAST", "NON CONTRAST", "WITHOUT", "WITHOUT CONTRAST", "W/O",
    "NATIVE", "NATIV", "NEIN", "KEIN", "KEINE", "OHNE", "NON", "AUCUN", "SANS", "NESSUNO", "SENZA",
    "NINGUNO", "SIN", "NENHUM", "SEM", "GEEN",
})  # fmt: skip
"""Values of ContrastBolusAgent that say that there was none."""

Kind = Literal["number", "text", "agent", "moment", "direction", "device", "day"]

OFTEN_REMOVED = frozenset({"device", "day"})
"""Kinds that de-identification or a reconstruction may leave out of some images of a volume: not
stated, they say nothing about an image."""

UNQUOTED = frozenset({"agent", "moment", "device", "day"})
"""Kinds whose values stay out of messages: free text, or close to a person."""


@dataclass(frozen=True)
class Trait:
    """A property of one image that is the same in all images of a volume.

    Attributes:
        reason: Refusal code of a series that has several values of it.
        name: Plural noun for messages.
        keyword: Element of a classic file.
        frame: Functional groups and the element in them, of an enhanced file; empty if none.
        rule: `always`: several values make several volumes; `repeated`: so they do where values
            recur, since within one volume this trait may drift from slice to slice; `shared`: it
            only names the difference of images at one position; `noted`: so it does, and values
            that recur are a remark, for one volume may be acquired in several breath-holds.
        kind: How the element is read.
        unit: Unit for messages.
        tolerance: Relative difference of equal numbers.
        slack: Absolute difference of equal numbers, in `unit`.
    """

    reason: str
    name: str
    keyword: str
    frame: tuple[str, ...] = ()
    rule: Rule = "always"
    kind: Kind = "number"
    unit: str = ""
    tolerance: float = 0.0
    slack: float = 0.0

    def of_file(self, dataset: Elements) -> Value:
        """Value that a classic file states."""
        return self._value(dataset, self.keyword)

    def of_frame(self, places: tuple[Dataset, Dataset]) -> Value:
        """Value that a frame of an enhanced file states, itself or for all frames."""
        if not self.frame:
            return None
        *groups, keyword = self.frame
        found = macro(places, groups[0])
        for group in groups[1:]:
            found = macro((found, Dataset()), group)
        return self._value(found, keyword)

    def _value(self, dataset: Elements, keyword: str) -> Value:
        if self.kind == "number":
            found = numbers(dataset, keyword, 1)
            return None if found is None else found[0]
        if self.kind == "direction":
            vector = numbers(dataset, keyword, 3)
            return None if vector is None else " ".join(f"{part:.3f}" for part in vector)
        text = "\\".join(words(dataset, keyword)).upper().rstrip("\\")
        if self.kind == "day":
            return _day(text)
        if self.kind == "agent" and text in NO_AGENT:
            return None
        return text or None

    def clusters(self, values: Iterable[Value]) -> list[list[Value]]:
        """Values in groups of equal ones; those not stated are a group of their own."""
        groups: list[list[Value]] = []
        texts: dict[str | None, list[Value]] = {}
        rest: list[float] = []
        for value in values:
            if isinstance(value, float):
                rest.append(value)
            else:
                texts.setdefault(value, []).append(value)
        for number in sorted(rest):
            before = groups[-1][-1] if groups else None
            if isinstance(before, float) and number - before <= max(
                self.slack, self.tolerance * abs(before)
            ):
                groups[-1].append(number)
            else:
                groups.append([number])
        return groups + list(texts.values())

    def parts(self, values: Sequence[Value]) -> bool:
        """Return whether values over a series are those of several volumes."""
        if self.kind in OFTEN_REMOVED:
            values = [value for value in values if value is not None]
        number = len(self.clusters(values))
        return number > 1 and (
            self.rule == "always" or (self.rule == "repeated" and 2 * number <= len(values))
        )

    def drifts(self, values: Sequence[Value]) -> bool:
        """Return whether a value differs from slice to slice, though of one volume."""
        return self.rule == "repeated" and len(self.clusters(values)) > 1

    def recurs(self, values: Sequence[Value]) -> bool:
        """Return whether slices of one volume come in groups that a remark should name."""
        if self.kind == "day":  # over midnight
            return len(set(values) - {None}) > 1
        if self.kind == "device":
            return len(set(values)) > 1
        return self.rule == "noted" and 1 < len(self.clusters(values)) <= len(values) / 2

    def describe(self, values: Sequence[Value]) -> str:
        """The values for a message: numbers and codes, never free text."""
        groups = self.clusters(values)
        if self.kind in OFTEN_REMOVED and len(set(values) - {None}) == 1:
            return f"{self.name} that only some images state"
        if self.kind in UNQUOTED:
            return f"several {self.name}"
        shown = [_shown(group[0], self.unit) for group in groups[:4]]
        more = f" and {len(groups) - 4} more" if len(groups) > 4 else ""
        return f"several {self.name} ({', '.join(shown)}{more})"


def _day(text: str) -> float | None:
    """Number of the day of a date such as `20240229`, or None."""
    try:
        return float(datetime.strptime(text.replace(".", "")[:8], "%Y%m%d").toordinal())
    except ValueError:
        return None


def _shown(value: Value, unit: str) -> str:
    if value is None:
        return "not stated"
    return f"{value:g} {unit}".rstrip() if isinstance(value, float) else value


_TIMING = {"tolerance": 0.05, "slack": 10.0, "unit": "ms"}
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence",
                "XRay3DFrameTypeSequence")  # fmt: skip


def _trait(reason: str, name: str, keyword: str, *frame: str, **options: Any) -> Trait:
    return Trait(f"several_{reason}", name, keyword, frame, **options)


TRAITS: tuple[Trait, ...] = (
    _trait("b_values", "diffusion weightings", "DiffusionBValue",
           "MRDiffusionSequence", "DiffusionBValue", unit="s/mm2", tolerance=0.02, slack=1.0),
    _trait("directions", "diffusion directions", "DiffusionGradientOrientation",
           "MRDiffusionSequence", "DiffusionGradientDirectionSequence",
           "DiffusionGradientOrientation", kind="direction", rule="shared"),
    _trait("echoes", "echo times", "EchoTime",
           "MREchoSequence", "EffectiveEchoTime", unit="ms", tolerance=0.02, slack=0.05),
    _trait("echoes", "echo numbers", "EchoNumbers", kind="text"),
    _trait("inversion_times", "inversion times", "InversionTime",
           "MRModifierSequence", "InversionTimes", rule="repeated", **_TIMING),
    _trait("flip_angles", "flip angles", "FlipAngle",
           "MRTimingAndRelatedParametersSequence", "FlipAngle", rule="repeated", unit="degrees",
           tolerance=0.1, slack=1.0),
    _trait("sequences", "pulse sequences", "ScanningSequence", kind="text"),
    _trait("sequences", "sequence names", "SequenceName", rule="repeated", kind="text"),
    _trait("scan_options", "scan options", "ScanOptions", rule="repeated", kind="text"),
    _trait("tube_voltages", "tube voltages", "KVP",
           "CTXRayDetailsSequence", "KVP", unit="kV", tolerance=0.02),
    _trait("kernels", "convolution kernels", "ConvolutionKernel",
           "CTReconstructionSequence", "ConvolutionKernel", kind="text"),
    _trait("filters", "filter types", "FilterType", kind="text"),
    _trait("patient_positions", "patient positions", "PatientPosition", kind="text"),
    _trait("scanners", "manufacturers", "Manufacturer", kind="device"),
    _trait("scanners", "scanner models", "ManufacturerModelName", kind="device"),
    _trait("scanners", "serial numbers of scanners", "DeviceSerialNumber", kind="device"),
    _trait("days", "acquisition dates", "AcquisitionDate", kind="day", slack=1.0),
    _trait("contrast_phases", "contrast phases", "ContrastBolusAgentPhase",
           "ContrastBolusUsageSequence", "ContrastBolusAgentPhase", kind="text"),
    _trait("contrast_phases", "contrast agents", "ContrastBolusAgent", kind="agent"),
    _trait("contrast_phases", "start times of contrast", "ContrastBolusStartTime", kind="moment"),
    *(_trait("image_types", "image types", "ImageType" if n == 0 else "", group, "FrameType",
             kind="text") for n, group in enumerate(_FRAME_TYPES)),
    *(_trait("image_types", "image components", "ComplexImageComponent" if n == 0 else "", group,
             "ComplexImageComponent", kind="text") for n, group in enumerate(_FRAME_TYPES[:1])),
    _trait("cardiac_phases", "cardiac phases", "NominalPercentageOfCardiacPhase",
           "CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", unit="%",
           slack=0.5),
    _trait("time_points", "temporal positions", "TemporalPositionIdentifier",
           "FrameContentSequence", "TemporalPositionIndex"),
    _trait("trigger_times", "trigger times", "TriggerTime",
           "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", rule="repeated",
           **_TIMING),
    _trait("time_points", "reference times", "FrameReferenceTime", rule="shared", unit="ms"),
    _trait("time_points", "acquisition times", "AcquisitionTime",
           "FrameContentSequence", "FrameAcquisitionDateTime", rule="shared", kind="moment"),
    _trait("acquisitions", "acquisition numbers", "AcquisitionNumber",
           "FrameContentSequence", "FrameAcquisitionNumber", rule="noted"),
    _trait("repetition_times", "repetition times", "RepetitionTime", rule="shared", unit="ms"),
)  # fmt: skip

TRAIT_TAGS = sorted({trait.keyword for trait in TRAITS} - {""})


def traits_of_file(dataset: Elements) -> tuple[Value, ...]:
    """Values of all traits that a classic file states, in the order of `TRAITS`."""
    return tuple(trait.of_file(dataset) if trait.keyword else None for trait in TRAITS)


def traits_of_frame(places: tuple[Dataset, Dataset]) -> tuple[Value, ...]:
    """Values of all traits of a frame of an enhanced file, in the order of `TRAITS`."""
    return tuple(trait.of_frame(places) for trait in TRAITS)


def several_volumes(rows: Sequence[tuple[Value, ...]]) -> tuple[str, str] | None:
    """Reason and message if the traits of a series are those of several volumes.

    Args:
        rows: Trait values of each image.
    """
    found = [
        (trait, column)
        for trait, column in zip(TRAITS, zip(*rows, strict=True), strict=True)
        if trait.parts(column)
    ]
    return _named(found)


def difference_at_one_place(rows: Sequence[tuple[Value, ...]]) -> tuple[str, str] | None:
    """Reason and message by which images at one position differ; None if by no known trait."""
    found = [
        (trait, column)
        for trait, column in zip(TRAITS, zip(*rows, strict=True), strict=True)
        if len(set(column)) > 1
    ]
    return _named(found)


def drifting(rows: Sequence[tuple[Value, ...]]) -> list[str]:
    """Remarks on traits that differ from slice to slice, though the series is one volume."""
    columns = list(zip(TRAITS, zip(*rows, strict=True), strict=True))
    remarks = [
        f"{trait.name} differ from slice to slice"
        for trait, column in columns
        if trait.drifts(column)
    ]
    return remarks + [
        f"{trait.describe(column)} in one series: check that it is one volume"
        for trait, column in columns
        if trait.recurs(column)
    ]


def _named(found: Sequence[tuple[Trait, Sequence[Value]]]) -> tuple[str, str] | None:
    if not found:
        return None
    message = "; ".join(trait.describe(column) for trait, column in found[:3])
    return found[0][0].reason, message
