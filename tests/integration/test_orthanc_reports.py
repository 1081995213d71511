"""A real PACS takes every form of segmentation and its report; a second run replaces both."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for tiny_model.py

from orthanc_server import PASSWORD, USER, Orthanc
from tiny_model import tiny_package

from segmed.archive import FolderSource, RetryPolicy, RunOptions, segment_archive
from segmed.archive.pacs.dicomweb import DicomWeb, StowDelivery
from segmed.formats import SEG_KINDS, SegForm, SegKind
from segmed.inference import Predictor

pytestmark = pytest.mark.integration

QUICK = RetryPolicy(attempts=10, first_wait_s=0.1, longest_wait_s=2.0)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.set_num_threads(1)
    return Predictor(tiny_package(patch=32, edge_mm=4.0), device="cpu", engine="torch")


def held(orthanc: Orthanc, modality: str) -> list[pydicom.Dataset]:
    """The objects of a modality in the PACS."""
    query = {"Level": "Instance", "Query": {"Modality": modality}}
    names = orthanc.rest("POST", "/tools/find", json=query).json()
    files = [orthanc.rest("GET", f"/instances/{name}/file").content for name in names]
    return [pydicom.dcmread(io.BytesIO(content)) for content in files]


@pytest.mark.parametrize("kind", SEG_KINDS)
def test_segmentation_and_report_are_in_the_pacs_once(
    orthanc: Orthanc,
    predictor: Predictor,
    tmp_path: Path,
    shared_data: Callable[[str], Path],
    kind: SegKind,
) -> None:
    source = FolderSource(shared_data("hippocampus_dicom") / "study1")
    service = DicomWeb(orthanc.dicomweb_url, USER, PASSWORD, QUICK)
    options = RunOptions(retry=QUICK, seg=SegForm(kind, reports=("sr",)))
    for name in ("first", "again"):
        (outcome,) = segment_archive(
            source, predictor=predictor, out_dir=tmp_path / name, format="dicom-seg",
            delivery=StowDelivery(service), options=options,
        )  # fmt: skip
        assert (outcome.status, outcome.reason) == ("done", "")
    (seg,), (report,) = held(orthanc, "SEG"), held(orthanc, "SR")
    assert seg.SegmentationType == kind.upper()
    written = pydicom.dcmread(tmp_path / "first" / str(outcome.output))
    assert seg.PixelData == written.PixelData
    referenced = {
        str(item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert str(seg.SOPInstanceUID) in referenced
    assert report.StudyInstanceUID == seg.StudyInstanceUID
