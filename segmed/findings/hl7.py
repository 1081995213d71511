"""HL7 v2.5.1 message ORU^R01 of the volumes and flags of a segmentation.

A numeric observation for each structure, a coded one for each flag; all are preliminary, as no
person has verified them. The filler number (OBR-3) is the identifier of the segmentation, so that
results of several models or series of a study do not overwrite each other. The control identifier
(MSH-10) is a hash of the message: a repeated run writes an equal one, which the receiver knows, and
a corrected result another one.

Source:
    HL7 v2.5.1, chapter 7 (ORU^R01, OBR, OBX), section 2.7 (escape sequences).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from segmed.findings.record import CONDITION, Findings, StructureFinding, meaning_of
from segmed.findings.segmentation import ReferencedSegmentation
from segmed.io.atomic import write_whole
from segmed.io.digest import sha256_of_text

ESCAPED = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
MOST_CONTROL = 20
"""Characters of MSH-10."""

CONTROL = 9
"""Place of MSH-10 among the fields of a segment that are separated by bars."""

HEAD = "MSH|^~\\&|SEGMED||||"


def write_oru(path: Path, findings: Findings, seg: ReferencedSegmentation) -> Path:
    """Write the message of one segmentation; whole or not at all.

    Args:
        path: `.hl7`.
        findings: What was measured.
        seg: The segmentation.

    Returns:
        `path`.
    """
    return write_whole(path, oru_message(findings, seg).encode("utf-8"))


def oru_message(findings: Findings, seg: ReferencedSegmentation) -> str:
    """The message; each segment ends with a carriage return."""
    dataset = seg.dataset
    moment = f"{dataset.ContentDate}{dataset.ContentTime}"[:14]
    lines = [
        f"{HEAD}{moment}||ORU^R01^ORU_R01||P|2.5.1||||||UNICODE UTF-8",
        _patient(seg),
        _request(seg, moment),
    ]
    observations = []
    for finding in findings.structures:
        observations += _observations(finding, findings, seg)
    uid = _text(dataset.SOPInstanceUID)
    observations.append(
        f"ST|ALGORITHM^Algorithm^99SEGMED||{_text(findings.model_name)} "
        f"{_text(findings.model_version)}||||||P"
    )
    observations.append(f"ST|SEG_UID^DICOM segmentation^99SEGMED||{uid}||||||P")
    study = _text(dataset.StudyInstanceUID)
    observations.append(f"ST|113014^DICOM Study^DCM||{study}||||||P")
    for number, observation in enumerate(observations, start=1):
        lines.append(f"OBX|{number}|{observation}|||{moment}")
    return sealed(lines)


def sealed(segments: Sequence[str]) -> str:
    """A message of segments with its control identifier, a hash of all the rest.

    Args:
        segments: MSH first; its control identifier is replaced.
    """
    head = segments[0].split("|")
    head[CONTROL] = ""
    content = "\r".join(["|".join(head), *segments[1:]])
    head[CONTROL] = sha256_of_text(content)[:MOST_CONTROL].upper()
    return "".join(f"{line}\r" for line in ("|".join(head), *segments[1:]))


def _patient(seg: ReferencedSegmentation) -> str:
    dataset = seg.dataset
    name = "^".join(_text(part) for part in str(dataset.get("PatientName") or "").split("^"))
    born, sex = _text(dataset.get("PatientBirthDate")), _text(dataset.get("PatientSex"))
    return f"PID|1||{_text(dataset.get('PatientID'))}||{name}||{born}|{sex or 'U'}"


def _request(seg: ReferencedSegmentation, moment: str) -> str:
    """The examination: accession number, result, time and state of the result."""
    dataset = seg.dataset
    accession, result = _text(dataset.get("AccessionNumber")), _text(dataset.SOPInstanceUID)
    service = "18748-4^Diagnostic imaging study^LN"
    done = f"{dataset.get('StudyDate') or ''}{dataset.get('StudyTime') or ''}"[:14]
    when = done if re.fullmatch(r"\d{8,14}", done) else moment
    # 7: time of the examination, 18: accession number, 22: time of the result, 25: its state
    return f"OBR|1|{accession}|{result}|{service}|||{when}|||||||||||{accession}||||{moment}||IMG|P"


def _observations(
    finding: StructureFinding, findings: Findings, seg: ReferencedSegmentation
) -> list[str]:
    """OBX-2 to OBX-11 of one structure: its volume or area, then its flags."""
    kind = seg.segments[finding.number].kind
    site = f"{_text(kind.CodeValue)}^{_text(kind.CodeMeaning)}^{_text(kind.CodingSchemeDesignator)}"
    value, quantity = f"{findings.value_of(finding):.6g}", findings.quantity
    unit = f"{quantity.unit}^{quantity.unit_meaning}^UCUM"
    named = f"{quantity.code}^{quantity.meaning}^SCT^{site}"
    found = [f"NM|{named}|{finding.number}|{value}|{unit}|||||P"]
    for code, meaning, end in () if finding.interval is None else finding.interval.ends:
        found.append(
            f"NM|{code}^{_text(meaning)}^99SEGMED^{site}|{finding.number}|{end:.6g}"
            "|mL^milliliter^UCUM|||||P"
        )
    if finding.interval is not None:
        found.append(
            f"CWE|VOLUME_INTERVAL^Interval of the volume^99SEGMED^{site}|{finding.number}|"
            f"EXCHANGEABLE^{_text(CONDITION)}^99SEGMED||||||P"
        )
    found += [
        f"CWE|QUALITY_FLAG^Quality flag^99SEGMED^{site}|{finding.number}|"
        f"{_text(flag.upper())}^{_text(meaning_of(flag))}^99SEGMED||||||P"
        for flag in finding.flags
    ]
    if (maker := finding.made_by) is not None:
        found.append(
            f"ST|ALGORITHM^Algorithm^99SEGMED^{site}|{finding.number}|{_text(maker.name)} "
            f"{_text(maker.version)}||||||P"
        )
    return found


def _text(value: object) -> str:
    """A text as a component: separators escaped, line ends as blanks."""
    plain = re.sub(r"[\r\n\t]+", " ", str(value if value is not None else ""))
    return "".join(ESCAPED.get(sign, sign) for sign in plain).strip()
