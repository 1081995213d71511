"""FHIR bundle of an Observation for each structure of a segmentation.

A transaction of updates under identifiers that are functions of the segmentation: a second delivery
replaces the first. The resources are valid in R4, R4B and R5.

Source:
    HL7 FHIR R4, Observation, Bundle (transaction); DICOM PS3.20 annex on imaging measurements.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from segmed.findings.record import (
    CONDITION,
    VOLUME,
    Findings,
    Quantity,
    StructureFinding,
    meaning_of,
)
from segmed.findings.segmentation import ReferencedSegmentation
from segmed.io.atomic import write_whole
from segmed.io.dicom.uid import uid_from
from segmed.io.digest import sha256_of_text

SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "FMA": "http://purl.org/sig/ont/fma",
}
"""Addresses of coding schemes."""

OWN_SYSTEM = "urn:segmed"
UCUM = "http://unitsofmeasure.org"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
DICOM_UID = "urn:dicom:uid"
MOST_ID = 64
"""Characters of a resource's identifier."""

Resource = dict[str, Any]


def write_bundle(path: Path, findings: Findings, seg: ReferencedSegmentation) -> Path:
    """Write the bundle of one segmentation; whole or not at all.

    Args:
        path: `.json`.
        findings: What was measured.
        seg: The segmentation.

    Returns:
        `path`.
    """
    text = json.dumps(bundle_of(findings, seg), indent=2, ensure_ascii=False)
    return write_whole(path, text.encode("utf-8"))


def bundle_of(findings: Findings, seg: ReferencedSegmentation) -> Resource:
    """The bundle as plain JSON values."""
    observations = [_observation(finding, findings, seg) for finding in findings.structures]
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [update_of(one) for one in observations],
    }


def update_of(resource: Resource) -> Resource:
    """Entry of a bundle that creates an observation, or replaces the one of its identifier."""
    return {
        "fullUrl": f"{OWN_SYSTEM}:observation:{resource['id']}",
        "resource": resource,
        "request": {"method": "PUT", "url": f"Observation/{resource['id']}"},
    }


def identity_of(uid: str, number: int) -> Resource:
    """Identifiers of the observation of one structure.

    Args:
        uid: SOPInstanceUID of the segmentation that the structure was first reported of.
        number: Number of its segment.
    """
    identity = f"{uid}.{number}"
    return {
        "id": sha256_of_text(identity)[:MOST_ID],
        "identifier": [
            {"system": DICOM_UID, "value": f"urn:oid:{uid_from('observation', identity)}"}
        ],
    }


def _observation(
    finding: StructureFinding, findings: Findings, seg: ReferencedSegmentation
) -> Resource:
    """The volume of one structure; its flags are components."""
    maker, quantity = findings.maker_of(finding), findings.quantity
    dataset, segment = seg.dataset, seg.segments[finding.number]
    resource: Resource = {
        "resourceType": "Observation",
        **identity_of(str(dataset.SOPInstanceUID), finding.number),
        "status": "preliminary",
        "category": [{"coding": [{"system": CATEGORY, "code": "imaging"}]}],
        "code": _concept("SCT", quantity.code, quantity.meaning),
        "subject": {"identifier": _patient(seg)},
        "bodySite": _concept(
            str(segment.kind.CodingSchemeDesignator),
            str(segment.kind.CodeValue),
            str(segment.kind.CodeMeaning),
            text=finding.name,
        ),
        "device": {"display": f"segmed {maker.name} {maker.version}"},
        "valueQuantity": _quantity(findings.value_of(finding), quantity),
        "derivedFrom": [
            _dicom_reference("ImagingStudy", str(dataset.StudyInstanceUID)),
            _dicom_reference("ImagingStudy", str(dataset.SOPInstanceUID), "DICOM segmentation"),
        ],
    }
    components = [*_interval(finding), *(_flag(flag) for flag in finding.flags)]
    if components:
        resource["component"] = components
    moment = _moment(seg)
    return {**resource, "effectiveDateTime": moment} if moment else resource


def _quantity(value: float, quantity: Quantity) -> Resource:
    unit = quantity.unit
    return {"value": float(f"{value:.6g}"), "unit": unit, "system": UCUM, "code": unit}


def _interval(finding: StructureFinding) -> list[Resource]:
    """Both ends of the interval of the volume and its condition, where one is stated."""
    if finding.interval is None:
        return []
    ends = [
        {"code": _concept("99SEGMED", code, meaning), "valueQuantity": _quantity(value, VOLUME)}
        for code, meaning, value in finding.interval.ends
    ]
    condition = {
        "code": _concept("99SEGMED", "VOLUME_INTERVAL", "Interval of the volume"),
        "valueCodeableConcept": _concept("99SEGMED", "EXCHANGEABLE", CONDITION),
    }
    return [*ends, condition]


def _flag(flag: str) -> Resource:
    return {
        "code": _concept("99SEGMED", "QUALITY_FLAG", "Quality flag"),
        "valueCodeableConcept": _concept("99SEGMED", flag.upper(), meaning_of(flag)),
    }


def _concept(scheme: str, value: str, meaning: str, *, text: str = "") -> Resource:
    system = SYSTEMS.get(scheme, f"{OWN_SYSTEM}:{scheme}")
    coding = {"system": system, "code": value, "display": meaning}
    return {"coding": [coding], "text": text or meaning}


def _patient(seg: ReferencedSegmentation) -> Resource:
    identifier: Resource = {"value": str(seg.dataset.get("PatientID") or "unknown")}
    issuer = str(seg.dataset.get("IssuerOfPatientID") or "")
    return {**identifier, "assigner": {"display": issuer}} if issuer else identifier


def _dicom_reference(kind: str, uid: str, display: str = "") -> Resource:
    reference: Resource = {
        "type": kind,
        "identifier": {"system": DICOM_UID, "value": f"urn:oid:{uid}"},
    }
    return {**reference, "display": display} if display else reference


def _moment(seg: ReferencedSegmentation) -> str:
    """Day of the study, `YYYY-MM-DD`; its time states no zone, which FHIR demands."""
    day = str(seg.dataset.get("StudyDate") or "")
    if not re.fullmatch(r"\d{8}", day):
        return ""
    return datetime.strptime(day, "%Y%m%d").strftime("%Y-%m-%d")
