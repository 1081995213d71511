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

from segmed.formats import REPORT_SUFFIXES, ReportKind
from segmed.io.dicom.header import tolerant_pydicom

INTERVAL_CODES = frozenset({"VOLUME_LOW", "VOLUME_HIGH", "VOLUME_INTERVAL"})
"""Codes of the ends of an interval and of its condition, in every kind of report."""

MARK = b"VOLUME_LOW"
"""Bytes of every report that states an interval."""


def without_intervals(report: Path) -> bytes | None:
    """Content of a report without its intervals; None if it states none.

    Identifiers stay: they are functions of the segmentation, and a second delivery replaces.

    Args:
        report: A report beside a segmentation, from `reports_beside`.
    """
    content = report.read_bytes()
    if MARK not in content:
        return None
    kind = next(kind for kind, end in REPORT_SUFFIXES.items() if report.name.endswith(end))
    return _TAKERS[kind](content)


def _of_sr(content: bytes) -> bytes:
    with tolerant_pydicom():
        dataset = pydicom.dcmread(BytesIO(content))
        _clean(dataset)
        written = BytesIO()
        dataset.save_as(written)
    return written.getvalue()


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
    """The message without the observations of intervals, the others renumbered."""
    lines, number = [], 0
    for line in content.decode("utf-8").split("\r"):
        fields = line.split("|")
        if fields[0] == "OBX":
            if fields[3].split("^")[0] in INTERVAL_CODES:
                continue
            number += 1
            fields[1] = str(number)
        lines.append("|".join(fields))
    return "\r".join(lines).encode("utf-8")


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
