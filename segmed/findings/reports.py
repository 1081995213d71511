"""Reports beside a DICOM segmentation: their names, and one call that writes those requested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.findings.record import Findings
from segmed.findings.segmentation import referenced_segmentation
from segmed.formats import OUTPUT_SUFFIXES, REPORT_SUFFIXES, ReportKind
from segmed.io.dicom.uid import uid_from
from segmed.io.read import source_of
from segmed.metatensor import MetaTensor


def modality_of(image: MetaTensor) -> str:
    """Modality of the DICOM images that an image was read from; empty for others."""
    source = source_of(image)
    return "" if source is None else source.modality


def report_path(output: Path, kind: ReportKind) -> Path:
    """File of a report, named after its segmentation."""
    return output.with_name(
        output.name.removesuffix(OUTPUT_SUFFIXES["dicom-seg"]) + REPORT_SUFFIXES[kind]
    )


def sr_uids(seg_instance: str) -> tuple[str, str]:
    """SeriesInstanceUID and SOPInstanceUID of the SR of a segmentation, from its SOPInstanceUID."""
    return uid_from("sr series", seg_instance), uid_from("sr instance", seg_instance)


def reports_beside(
    output: Path, kinds: Sequence[ReportKind] = tuple(REPORT_SUFFIXES)
) -> list[Path]:
    """The reports that there are of a segmentation."""
    if not output.name.endswith(OUTPUT_SUFFIXES["dicom-seg"]):
        return []
    return [path for kind in kinds if (path := report_path(output, kind)).is_file()]


def write_reports(
    output: Path, findings: Findings, kinds: Sequence[ReportKind], *, modality: str = ""
) -> list[Path]:
    """Write reports beside a segmentation, each whole or not at all.

    Args:
        output: The DICOM segmentation, which has been written.
        findings: What was measured of it.
        kinds: The reports requested.
        modality: Modality of its source images.

    Returns:
        The files.
    """
    if not kinds:
        return []
    seg = referenced_segmentation(output)
    written = []
    for kind in kinds:
        path = report_path(output, kind)
        if kind == "sr":
            from segmed.findings.sr import write_sr  # noqa: PLC0415 - highdicom

            written.append(write_sr(path, findings, seg, modality=modality))
        elif kind == "hl7":
            from segmed.findings.hl7 import write_oru  # noqa: PLC0415 - only where requested

            written.append(write_oru(path, findings, seg))
        else:
            from segmed.findings.fhir import write_bundle  # noqa: PLC0415 - as above

            written.append(write_bundle(path, findings, seg))
    return written
