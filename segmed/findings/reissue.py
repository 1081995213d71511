"""Messages of a result that replaces a reported one, and of a result that is withdrawn.

A correction has the identifiers under which the result was first reported, the new values and the
state `corrected`; it says that no person has reviewed it. A withdrawn result is reported again as
wrong: `W` in HL7, `entered-in-error` in FHIR. Both are functions of the report: repeated, they give
equal bytes.

Source:
    HL7 v2.5.1, tables 0085 (OBX-11) and 0123 (OBR-25); HL7 FHIR R4, Observation.status; HL7 v2 to
    FHIR, concept map of table 0085.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.findings.fhir import identity_of, update_of
from segmed.findings.hl7 import sealed
from segmed.formats import REPORT_SUFFIXES, ReportKind

MESSAGES: tuple[ReportKind, ...] = ("hl7", "fhir")
"""Reports that leave for receivers of their own; an SR is withdrawn in the PACS that has it."""

FILLER, REQUEST_STATE, OBSERVATION_STATE = 3, 25, 11
"""OBR-3, OBR-25 and OBX-11."""

REPLACES = (
    "Correction {}: replaces the result reported before, whose images have changed since. "
    "Not reviewed by a person."
)
WITHDRAWN = "Withdrawn: this result no longer applies."


@dataclass(frozen=True)
class Reported:
    """Identity of a result in the systems that its messages were sent to.

    Attributes:
        uid: SOPInstanceUID of the segmentation that it was first reported of.
        revision: Number of corrections since.
    """

    uid: str
    revision: int = 0


def corrected(report: Path, reported: Reported) -> bytes:
    """Content of a message as the correction of one that was reported before.

    Args:
        report: The message of the new result, from `reports_beside`.
        reported: Identity of the result, its revision counted.
    """
    note = REPLACES.format(reported.revision)
    if _is_hl7(report):
        return _hl7(report.read_bytes(), "C", note, reported.uid)

    def correct(resource: dict[str, Any], number: int) -> dict[str, Any]:
        return {**resource, **identity_of(reported.uid, number), "status": "corrected"}

    return _fhir(report.read_bytes(), correct, note)


def voided(report: Path) -> bytes:
    """Content of a message that declares the result of another one wrong.

    Args:
        report: The message that was reported.
    """
    if _is_hl7(report):
        return _hl7(report.read_bytes(), "W", WITHDRAWN)
    return _fhir(
        report.read_bytes(),
        lambda resource, _: {**resource, "status": "entered-in-error"},
        WITHDRAWN,
    )


def _is_hl7(report: Path) -> bool:
    return report.name.endswith(REPORT_SUFFIXES["hl7"])


def _hl7(content: bytes, state: str, note: str, filler: str = "") -> bytes:
    """The message with another state of each observation and a note on it."""
    lines = []
    for line in content.decode("utf-8").split("\r")[:-1]:
        fields = line.split("|")
        if fields[0] == "NTE":
            continue
        if fields[0] == "OBR":
            fields[FILLER] = filler or fields[FILLER]
            fields[REQUEST_STATE] = "C"
        elif fields[0] == "OBX":
            fields[OBSERVATION_STATE] = state
        lines.append("|".join(fields))
        if fields[0] == "OBR":
            lines.append(f"NTE|1|L|{note}")
    return sealed(lines).encode("utf-8")


def _fhir(
    content: bytes, change: Callable[[dict[str, Any], int], dict[str, Any]], note: str
) -> bytes:
    """The bundle with changed observations, each by its number, and a note on each."""
    bundle: dict[str, Any] = json.loads(content)
    resources = [entry["resource"] for entry in bundle["entry"]]
    bundle["entry"] = [
        update_of({**change(resource, number), "note": [{"text": note}]})
        for number, resource in enumerate(resources, start=1)
    ]
    return json.dumps(bundle, indent=2, ensure_ascii=False).encode("utf-8")
