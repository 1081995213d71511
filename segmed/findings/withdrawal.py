"""Intervals taken out of reports that were written, after drift has withdrawn them."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from segmed.findings.hl7 import sealed
from segmed.formats import REPORT_SUFFIXES, ReportKind
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.uid import uid_from

INTERVAL_CODES = frozenset({"VOLUME_LOW", "VOLUME_HIGH", "VOLUME_INTERVAL"})
"""Codes of the ends of an interval and of its condition, in every kind of report."""

MARK = b"VOLUME_LOW"
"""Bytes of every report that states an interval."""


def without_intervals(report: Path, *, is_kept: bool = False) -> bytes | None:
    """Content of a report without its intervals; None if it states none.

    Identifiers stay: they are functions of the segmentation, and a second delivery replaces. A PACS
    that does not take objects back ignores a second object of the same identifier, so that there an
    SR needs its own, and names the one before it as its predecessor.

    Args:
        report: A report beside a segmentation, from `reports_beside`.
        is_kept: The report was sent to a PACS that does not take it back.

    Source:
        DICOM PS3.3, section C.17.2 (Predecessor Documents Sequence).
    """
    content = report.read_bytes()
    if MARK not in content:
        return None
    kind = next(kind for kind, end in REPORT_SUFFIXES.items() if report.name.endswith(end))
    if kind == "sr" and is_kept:
        return _of_sr(content, has_successor=True)
    return _TAKERS[kind](content)


def _of_sr(content: bytes, *, has_successor: bool = False) -> bytes:
    with tolerant_pydicom():
        dataset = pydicom.dcmread(BytesIO(content))
        _clean(dataset)
        if has_successor:
            _succeed(dataset)
        written = BytesIO()
        dataset.save_as(written)
    return written.getvalue()


def _succeed(dataset: pydicom.FileDataset) -> None:
    """Give an SR an identifier of its own, and the one that it had as that of its predecessor."""
    before, series, study = Dataset(), Dataset(), Dataset()
    before.ReferencedSOPClassUID = dataset.SOPClassUID
    before.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    series.SeriesInstanceUID = dataset.SeriesInstanceUID
    series.ReferencedSOPSequence = Sequence([before])
    study.StudyInstanceUID = dataset.StudyInstanceUID
    study.ReferencedSeriesSequence = Sequence([series])
    dataset.PredecessorDocumentsSequence = Sequence([study])
    dataset.SOPInstanceUID = uid_from("sr without intervals", str(dataset.SOPInstanceUID))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = int(dataset.get("InstanceNumber") or 1) + 1


def _clean(item: Dataset) -> None:
    """Remove content items of intervals below an item."""
    if "ContentSequence" not in item:
        return
    kept = [child for child in item.ContentSequence if _code_of(child) not in INTERVAL_CODES]
    for child in kept:
        _clean(child)
    item.ContentSequence = Sequence(kept)


def _code_of(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def _of_hl7(content: bytes) -> bytes:
    """The message without the observations of intervals, the others renumbered.

    Its control identifier is another one, so that the receiver takes it for another message.
    """
    lines, number = [], 0
    for line in content.decode("utf-8").split("\r")[:-1]:
        fields = line.split("|")
        if fields[0] == "OBX":
            if fields[3].split("^")[0] in INTERVAL_CODES:
                continue
            number += 1
            fields[1] = str(number)
        lines.append("|".join(fields))
    return sealed(lines).encode("utf-8")


def _of_fhir(content: bytes) -> bytes:
    bundle: dict[str, Any] = json.loads(content)
    for entry in bundle["entry"]:
        observation = entry["resource"]
        kept = [one for one in observation.get("component", []) if not _is_interval(one)]
        if kept:
            observation["component"] = kept  # in its place: the same bytes as without intervals
        else:
            observation.pop("component", None)
    return json.dumps(bundle, indent=2, ensure_ascii=False).encode("utf-8")


def _is_interval(component: dict[str, Any]) -> bool:
    return any(coding["code"] in INTERVAL_CODES for coding in component["code"]["coding"])


_TAKERS: dict[ReportKind, Callable[[bytes], bytes]] = {
    "sr": _of_sr,
    "hl7": _of_hl7,
    "fhir": _of_fhir,
}
