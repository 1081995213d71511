"""DICOM SR beside a segmentation: conformant, and read back with the same numbers by dcmqi."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from reported import FLAGS, LABELS, VERSION, findings, written_segmentation

from segmed.findings.reports import report_path, write_reports


def written_sr(folder: Path, **patient: str) -> tuple[Path, Path]:
    """A segmentation and its report."""
    seg = written_segmentation(folder, **patient)
    (sr,) = write_reports(seg, findings(), ("sr",), modality="MR")
    assert sr == report_path(seg, "sr") == folder / "x.sr.dcm"
    return seg, sr


def test_report_is_conformant(tmp_path: Path) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    _, sr = written_sr(tmp_path)
    said = subprocess.run(
        [program, str(sr)], capture_output=True, text=True, check=False, encoding="utf-8"
    ).stderr
    assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_dcmqi_reads_the_same_numbers(tmp_path: Path) -> None:
    beside_python = Path(sys.executable).with_name("tid1500reader")
    program = str(beside_python) if beside_python.is_file() else shutil.which(beside_python.name)
    if program is None:
        pytest.skip("dcmqi (of the developers' tools) is not installed")
    seg, sr = written_sr(tmp_path)
    out = tmp_path / "sr.json"
    command = [program, "--inputDICOM", str(sr), "--outputMetadata", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    groups = json.loads(out.read_text(encoding="utf-8"))["Measurements"]
    segmentation = pydicom.dcmread(seg, stop_before_pixels=True)
    assert len(groups) == len(LABELS)
    for number, (group, finding) in enumerate(zip(groups, findings().structures, strict=True), 1):
        (measured,) = group["measurementItems"]
        assert float(measured["value"]) == pytest.approx(finding.volume_ml, abs=1e-12)
        assert measured["units"]["CodeValue"] == "mL"
        assert measured["quantity"]["CodeValue"] == "118565006"
        assert group["ReferencedSegment"] == number
        assert group["segmentationSOPInstanceUID"] == segmentation.SOPInstanceUID
        segment = segmentation.SegmentSequence[number - 1]
        assert group["TrackingUniqueIdentifier"] == segment.TrackingUID
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert group["Finding"]["CodeValue"] == kind.CodeValue
        assert group["measurementAlgorithmIdentification"] == {
            "AlgorithmName": "unet", "AlgorithmVersion": VERSION,
        }  # fmt: skip
        flags = [
            one["conceptValue"]["CodeValue"] for one in group.get("qualitativeEvaluations", [])
        ]
        expected = [flag.partition(":")[0].upper() for flag in FLAGS if finding.name in flag]
        assert flags == expected


def test_report_belongs_to_patient_and_study_and_refers_to_segmentation_and_images(
    tmp_path: Path,
) -> None:
    seg_path, sr_path = written_sr(tmp_path)
    seg, report = pydicom.dcmread(seg_path), pydicom.dcmread(sr_path)
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDate"):
        assert report[name].value == seg[name].value
    referenced = {
        str(item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    images = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert referenced == {
        str(seg.SOPInstanceUID), *(str(item.ReferencedSOPInstanceUID) for item in images)
    }  # fmt: skip
    texts = {
        str(item.TextValue) for item in report.ContentSequence if item.get("TextValue") is not None
    }
    assert {"segmed", "unet", VERSION} <= texts
    assert report.VerificationFlag == "UNVERIFIED"
    assert int(report.SeriesNumber) == 9001


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    seg, sr = written_sr(tmp_path)
    before = sr.read_bytes()
    write_reports(seg, findings(), ("sr",), modality="MR")
    assert sr.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "charset"),
    [("Müller^Jörg", "ISO_IR 100"), ("山田^太郎", "ISO_IR 192"), ("DOE^JANE", "")],
)
def test_names_in_any_character_set_stay(tmp_path: Path, name: str, charset: str) -> None:
    _, sr = written_sr(tmp_path, name=name, charset=charset)
    assert str(pydicom.dcmread(sr).PatientName) == name
