"""DICOM SR of the volumes and flags of a segmentation, by template TID 1500.

A measurement group for each structure refers to its segment and to the source images. Identifiers
are functions of the segmentation's, dates are its own: equal input gives equal bytes.

Source:
    DICOM PS3.16, TID 1500 (Measurement Report), TID 1410 (Planar ROI Measurements), TID 1411
    (Volumetric ROI Measurements), TID 1004 (Device Observer).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from segmed.findings.record import CONDITION, VOLUME, Findings, StructureFinding, meaning_of
from segmed.findings.reports import sr_uids
from segmed.findings.segmentation import ReferencedSegmentation, ReportedSegment
from segmed.io.atomic import whole_file
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.references import set_moment
from segmed.io.dicom.segments import OWN_SCHEME
from segmed.io.dicom.texts import SourceTexts
from segmed.io.dicom.uid import uid_from

SERIES_NUMBER = 9001
MILLILITRE = hd.sr.CodedConcept(VOLUME.unit, "UCUM", VOLUME.unit_meaning)
QUALITY_FLAG = hd.sr.CodedConcept("QUALITY_FLAG", OWN_SCHEME, "Quality flag")
INTERVAL = hd.sr.CodedConcept("VOLUME_INTERVAL", OWN_SCHEME, "Interval of the volume")
PROCEDURES = {
    "CT": hd.sr.CodedConcept("77477000", "SCT", "Computed tomography"),
    "MR": hd.sr.CodedConcept("113091000", "SCT", "Magnetic resonance imaging"),
}
ANY_PROCEDURE = hd.sr.CodedConcept("363679005", "SCT", "Imaging procedure")
COPIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip
"""Patient and study, which the report shares with its segmentation."""


def write_sr(
    path: Path, findings: Findings, seg: ReferencedSegmentation, *, modality: str = ""
) -> Path:
    """Write the report of one segmentation; whole or not at all.

    Args:
        path: `.dcm`.
        findings: What was measured.
        seg: The segmentation.
        modality: Modality of the source images, which names the procedure.

    Returns:
        `path`.
    """
    source = _copy(seg.dataset)
    texts = SourceTexts.of(source)
    series_uid, instance_uid = sr_uids(str(seg.dataset.SOPInstanceUID))
    with tolerant_pydicom():
        texts.replace_by_stand_ins(source)
        # Names of real patients break the recommended form; they are copied as they are.
        warnings.filterwarnings("ignore", category=UserWarning, module="highdicom")
        content = hd.sr.MeasurementReport(
            observation_context=_observer(findings),
            procedure_reported=PROCEDURES.get(modality, ANY_PROCEDURE),
            imaging_measurements=[
                _group(finding, seg.segments[finding.number], seg, findings)
                for finding in findings.structures
            ],
            title=codes.DCM.ImagingMeasurementReport,
        )
        report = hd.sr.ComprehensiveSR(
            evidence=[source, *_images(source, seg)],
            content=content[0],
            series_instance_uid=series_uid,
            series_number=SERIES_NUMBER,
            sop_instance_uid=instance_uid,
            instance_number=1,
            manufacturer="segmed",
            is_complete=True,
            series_description=f"Measurements by {findings.model_name}"[:64],
        )
        set_moment(report, str(source.ContentDate), str(source.ContentTime))
        report.StudyDescription = source.get("StudyDescription", "")
        texts.restore(report, source)
        with whole_file(path) as partial:
            report.save_as(partial)
    return path


def _copy(dataset: Dataset) -> Dataset:
    """The elements of a segmentation that a report copies or refers to."""
    copy = Dataset()
    for name in (
        *COPIED, "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ContentDate",
        "ContentTime", "SpecificCharacterSet",
    ):  # fmt: skip
        if name in dataset:  # undecoded, as it was read
            copy[name] = dataset.get_item(name)
    return copy


def _images(source: Dataset, seg: ReferencedSegmentation) -> list[Dataset]:
    """Stand-ins of the source images, for the evidence."""
    found = []
    for class_uid, instance_uid in seg.images:
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = class_uid, instance_uid
        image.SeriesInstanceUID = seg.source_series
        image.StudyInstanceUID = source.StudyInstanceUID
        found.append(image)
    return found


def _observer(findings: Findings) -> hd.sr.ObservationContext:
    """Model and version as device observer."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uid_from("device", findings.model_name, findings.model_version),
        name="segmed",
        manufacturer_name="segmed",
        model_name=findings.model_name,
        serial_number=findings.model_version,
    )
    context = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    return hd.sr.ObservationContext(observer_device_context=context)


def _group(
    finding: StructureFinding,
    segment: ReportedSegment,
    seg: ReferencedSegmentation,
    findings: Findings,
) -> (
    hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
):
    """The measures of one structure."""
    kind, maker, quantity = segment.kind, findings.maker_of(finding), findings.quantity
    shared: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=segment.tracking_uid, identifier=segment.tracking_id
        ),
        "finding_type": hd.sr.CodedConcept(
            str(kind.CodeValue), str(kind.CodingSchemeDesignator), str(kind.CodeMeaning)
        ),
        "algorithm_id": hd.sr.AlgorithmIdentification(maker.name, maker.version),
        "measurements": [
            hd.sr.Measurement(
                hd.sr.CodedConcept(quantity.code, "SCT", quantity.meaning),
                findings.value_of(finding),
                hd.sr.CodedConcept(quantity.unit, "UCUM", quantity.unit_meaning),
            ),
            *_interval(finding),
        ],
        "qualitative_evaluations": [
            hd.sr.QualitativeEvaluation(
                QUALITY_FLAG, hd.sr.CodedConcept(flag.upper()[:16], OWN_SCHEME, meaning_of(flag))
            )
            for flag in finding.flags
        ]
        + _condition(finding),
    }
    named = {
        "sop_class_uid": str(seg.dataset.SOPClassUID),
        "sop_instance_uid": str(seg.dataset.SOPInstanceUID),
    }
    if findings.is_plane:
        image_class, image = seg.images[0]
        frame = hd.sr.ReferencedSegmentationFrame(
            **named,
            frame_number=1,
            segment_number=finding.number,
            source_image=hd.sr.SourceImageForSegmentation(image_class, image),
        )
        # The number of a segment stands for its frames: both are not allowed (PS3.3 C.17.3.5).
        del frame[0].ReferencedSOPSequence[0].ReferencedFrameNumber
        return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=frame, **shared
        )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=hd.sr.ReferencedSegment(
            **named,
            segment_number=finding.number,
            source_series=hd.sr.SourceSeriesForSegmentation(seg.source_series),
        ),
        **shared,
    )


def _interval(finding: StructureFinding) -> list[hd.sr.Measurement]:
    """Both ends of the interval of a volume, where one is stated."""
    ends = () if finding.interval is None else finding.interval.ends
    return [
        hd.sr.Measurement(hd.sr.CodedConcept(code, OWN_SCHEME, meaning), value, MILLILITRE)
        for code, meaning, value in ends
    ]


def _condition(finding: StructureFinding) -> list[hd.sr.QualitativeEvaluation]:
    """Condition under which the interval holds."""
    if finding.interval is None:
        return []
    return [
        hd.sr.QualitativeEvaluation(
            INTERVAL, hd.sr.CodedConcept("EXCHANGEABLE", OWN_SCHEME, CONDITION)
        )
    ]
