"""Faults found by an audit, and the facts it keeps of each case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from segmed.geometry import Grid
from segmed.manifest.resampled import Extent

if TYPE_CHECKING:
    from segmed.io.source import Source


@dataclass(frozen=True)
class ManifestFault:
    """One thing that is wrong or odd.

    Attributes:
        case_id: The case; empty for the whole set.
        code: Short stable name, such as `missing_file`.
        message: What was found, in one line.
        severity: `error` makes the case unfit; `note` is for a look.
    """

    case_id: str
    code: str
    message: str
    severity: Literal["error", "note"] = "error"


def note(case_id: str, code: str, message: str) -> ManifestFault:
    """A fault that leaves the case fit."""
    return ManifestFault(case_id, code, message, "note")


@dataclass
class CaseRecord:
    """Audit record of one case.

    Attributes:
        case_id: The case.
        faults: What was found so far.
        grid: Grid of the image, where it could be read.
        content: Digest of the image's voxels.
        levels: Mean intensity of each channel.
        voxels: Voxels of each known label value that occurs.
        has_label: Whether the label could be read.
        extents: Sizes of the structures.
        source: Where the image came from, where it could be read.
    """

    case_id: str
    faults: list[ManifestFault] = field(default_factory=list)
    grid: Grid | None = None
    content: str | None = None
    levels: tuple[float, ...] = ()
    voxels: dict[int, int] = field(default_factory=dict)
    has_label: bool = False
    extents: tuple[Extent, ...] = ()
    source: Source | None = None

    def error(self, code: str, message: str) -> None:
        """Remembers a fault that makes the case unfit."""
        self.faults.append(ManifestFault(self.case_id, code, message))

    def note(self, code: str, message: str) -> None:
        """Remembers a fault that leaves the case fit."""
        self.faults.append(note(self.case_id, code, message))


def order_of(case_ids: Sequence[str]) -> Callable[[ManifestFault], tuple[int, bool, str]]:
    """The sort key that puts faults in the order of cases, errors first, the set's own last."""
    place = {case_id: number for number, case_id in enumerate(case_ids)}

    def key(fault: ManifestFault) -> tuple[int, bool, str]:
        return place.get(fault.case_id, len(place)), fault.severity == "note", fault.code

    return key
