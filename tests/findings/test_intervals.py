"""Intervals of volumes in reports: stated with their condition, and taken out again."""

from __future__ import annotations

import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from reported import FLAGS, LABELS, VERSION, findings, written_segmentation

from segmed.findings.record import CONDITION, Findings, VolumeInterval, findings_of
from segmed.findings.reports import reports_beside, write_reports
from segmed.findings.withdrawal import without_intervals
from segmed.formats import REPORT_SUFFIXES

INTERVALS = {
    "anterior": VolumeInterval(0.15, 0.21234567, 0.9),
    LABELS[1].name: VolumeInterval(0.01, 0.1, 0.9),
}


def with_intervals() -> Findings:
    plain = findings()
    volumes = {one.name: one.volume_ml for one in plain.structures}
    return findings_of(
        LABELS, volumes, FLAGS, model_name="unet", model_version=VERSION, intervals=INTERVALS
    )


@pytest.fixture
def seg(tmp_path: Path) -> Path:
    path = written_segmentation(tmp_path, name="Müller^Jörg", charset="ISO_IR 100")
    write_reports(path, with_intervals(), tuple(REPORT_SUFFIXES), modality="MR")
    return path


def items_of(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    below = [found for child in dataset.get("ContentSequence", ()) for found in items_of(child)]
    return [*below, dataset]


def coded(dataset: pydicom.Dataset, code: str) -> list[pydicom.Dataset]:
    return [
        item
        for item in items_of(dataset)
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == code
    ]


def test_every_report_states_both_ends_and_the_condition(seg: Path) -> None:
    sr, hl7, fhir = reports_beside(seg)
    dataset = pydicom.dcmread(sr)
    lows = [float(i.MeasuredValueSequence[0].NumericValue) for i in coded(dataset, "VOLUME_LOW")]
    assert lows == [0.15, 0.01]
    (_, high) = coded(dataset, "VOLUME_HIGH")
    assert high.ConceptNameCodeSequence[0].CodeMeaning == (
        "Upper end of the 90% interval of the volume"
    )
    conditions = coded(dataset, "VOLUME_INTERVAL")
    assert [one.ConceptCodeSequence[0].CodeMeaning for one in conditions] == [CONDITION] * 2
    assert len(CONDITION) <= 64  # of CodeMeaning
    message = hl7.read_bytes().decode("utf-8")
    assert message.count("VOLUME_LOW^") == message.count("VOLUME_HIGH^") == 2
    assert message.count(CONDITION) == 2
    bundle = json.loads(fhir.read_bytes())
    components = bundle["entry"][0]["resource"]["component"]
    assert components[1]["valueQuantity"] == {
        "value": 0.212346, "unit": "mL", "system": "http://unitsofmeasure.org", "code": "mL",
    }  # fmt: skip


def test_report_with_intervals_is_conformant(seg: Path) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    for content in (reports_beside(seg)[0].read_bytes(), without_intervals(reports_beside(seg)[0])):
        assert content is not None
        path = seg.with_name("checked.dcm")
        path.write_bytes(content)
        command = [program, str(path)]
        said = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert [one for one in said.stderr.splitlines() if one.startswith("Error")] == []


def test_a_withdrawn_interval_leaves_the_report_that_would_have_been_written(seg: Path) -> None:
    taken = {path: without_intervals(path) for path in reports_beside(seg)}
    for path in taken:
        path.unlink()
    write_reports(seg, findings(), tuple(REPORT_SUFFIXES), modality="MR")
    for path, content in taken.items():
        assert content is not None
        if path.name.endswith(REPORT_SUFFIXES["sr"]):
            assert pydicom.dcmread(BytesIO(content)) == pydicom.dcmread(path)
        else:
            assert content == path.read_bytes()
        assert without_intervals(path) is None  # nothing to take out


def test_a_report_that_is_kept_elsewhere_gets_a_conformant_successor(seg: Path) -> None:
    path = next(one for one in reports_beside(seg) if one.name.endswith(REPORT_SUFFIXES["sr"]))
    before = pydicom.dcmread(path)
    content = without_intervals(path, is_kept=True)
    assert content is not None
    path.write_bytes(content)
    after = pydicom.dcmread(path)
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert after.SeriesInstanceUID == before.SeriesInstanceUID
    (study,) = after.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (named,) = series.ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert coded(after, "VOLUME_LOW") == []
    assert without_intervals(path, is_kept=True) is None
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is missing: apt-get install dicom3tools")
    said = subprocess.run(["dciodvfy", path], capture_output=True, encoding="utf-8", check=False)
    assert [one for one in said.stderr.splitlines() if one.startswith("Error")] == []
