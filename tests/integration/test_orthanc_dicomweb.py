"""A real PACS by DICOMweb: every study once, results delivered, none lost when it is killed."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for tiny_model.py

from orthanc_server import PASSWORD, USER, Orthanc
from tiny_model import tiny_package

from segmed.archive import FolderSource, RetryPolicy, RunOptions, segment_archive
from segmed.archive.pacs.dicomweb import DicomWeb, DicomWebSource, StowDelivery
from segmed.archive.pacs.remote import Query
from segmed.errors import ServiceError
from segmed.inference import Predictor
from segmed.io import read_label
from segmed.io.dicom.series import read_series, scan

pytestmark = pytest.mark.integration

QUICK = RetryPolicy(attempts=10, first_wait_s=0.1, longest_wait_s=2.0)
QUERY = Query(modalities=("MR",), description="^(?!.*mask)")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.set_num_threads(1)
    return Predictor(tiny_package(patch=32, edge_mm=4.0), device="cpu", engine="torch")


def service_of(orthanc: Orthanc) -> DicomWeb:
    return DicomWeb(orthanc.dicomweb_url, USER, PASSWORD, QUICK)


def run(orthanc: Orthanc, predictor: Predictor, out: Path) -> list[object]:
    service = service_of(orthanc)
    return list(
        segment_archive(
            DicomWebSource(service, QUERY),
            predictor=predictor,
            out_dir=out,
            format="dicom-seg",
            delivery=StowDelivery(service),
            options=RunOptions(retry=QUICK),
        )
    )


def segmentations(orthanc: Orthanc) -> dict[str, pydicom.Dataset]:
    """The SEG objects that the PACS holds, by SOPInstanceUID."""
    query = {"Level": "Series", "Query": {"Modality": "SEG"}, "Expand": True}
    found = {}
    for series in orthanc.rest("POST", "/tools/find", json=query).json():
        for instance in series["Instances"]:
            content = orthanc.rest("GET", f"/instances/{instance}/file").content
            dataset = pydicom.dcmread(io.BytesIO(content))
            found[str(dataset.SOPInstanceUID)] = dataset
    return found


def test_studies_of_a_pacs_are_segmented_once_and_results_lie_in_it(
    tmp_path: Path, orthanc: Orthanc, predictor: Predictor, shared_data: Callable[[str], Path]
) -> None:
    folders = [shared_data("hippocampus_dicom"), shared_data("pgbm")]
    assert sum(map(orthanc.upload, folders)) > 100
    wanted = {
        audit.series_uid: audit
        for folder in folders
        for audit in scan(folder)
        if "mask" not in audit.description.lower()
    }
    outcomes = run(orthanc, predictor, tmp_path / "out")
    assert [outcome.status for outcome in outcomes] == ["done"] * len(wanted)

    stored = segmentations(orthanc)
    assert len(stored) == len(wanted)
    for dataset in stored.values():
        audit = wanted.pop(str(dataset.ReferencedSeriesSequence[0].SeriesInstanceUID))
        assert dataset.StudyInstanceUID == audit.study_uid
        check_geometry(dataset, audit, predictor, tmp_path)
    assert not wanted

    assert not any(outcome.fresh for outcome in run(orthanc, predictor, tmp_path / "out"))
    assert segmentations(orthanc).keys() == stored.keys()

    victim = sorted(stored)[0]
    [instance] = orthanc.rest("POST", "/tools/lookup", data=victim).json()
    orthanc.rest("DELETE", f"/instances/{instance['ID']}")
    assert len(segmentations(orthanc)) == len(stored) - 1
    again = run(orthanc, predictor, tmp_path / "out")
    assert sum(outcome.fresh for outcome in again) == 1
    assert segmentations(orthanc).keys() == stored.keys()


def check_geometry(
    dataset: pydicom.Dataset, audit: object, predictor: Predictor, folder: Path
) -> None:
    """The SEG, read back, equals the label that the model gives for the series, on its grid."""
    path = folder / "back.dcm"
    dataset.save_as(path)
    image = read_series(audit)
    expected = predictor.predict(image).label
    found = read_label(path)
    # The SEG may store its frames the other way round: compare voxel by voxel in the patient.
    turn = np.linalg.inv(np.asarray(found.affine)) @ np.asarray(image.affine)
    index = np.stack(np.meshgrid(*map(np.arange, expected.shape[1:]), indexing="ij"), -1)
    mapped = index @ turn[:3, :3].T + turn[:3, 3]
    assert np.abs(mapped - mapped.round()).max() < 1e-2
    i, j, k = np.moveaxis(mapped.round().astype(int), -1, 0)
    np.testing.assert_array_equal(found.numpy()[0][i, j, k], expected.numpy()[0])


def test_run_ends_complete_though_the_pacs_is_killed_and_restarted(
    tmp_path: Path, orthanc: Orthanc, predictor: Predictor, shared_data: Callable[[str], Path]
) -> None:
    orthanc.upload(shared_data("hippocampus_dicom"))
    orthanc.upload(shared_data("pgbm"))
    seen = threading.Event()

    def kill_and_restart() -> None:
        seen.wait(60)
        orthanc.kill()
        time.sleep(1.5)
        orthanc.start()

    killer = threading.Thread(target=kill_and_restart)
    killer.start()
    service = service_of(orthanc)
    outcomes = []
    for outcome in segment_archive(
        DicomWebSource(service, QUERY),
        predictor=predictor,
        out_dir=tmp_path / "out",
        format="dicom-seg",
        delivery=StowDelivery(service),
        options=RunOptions(retry=QUICK),
    ):
        outcomes.append(outcome)
        seen.set()
    killer.join()
    assert [outcome.status for outcome in outcomes] == ["done"] * 9
    assert len(segmentations(orthanc)) == 9


def test_pacs_and_folder_give_the_same_segmentation(
    tmp_path: Path, orthanc: Orthanc, predictor: Predictor, shared_data: Callable[[str], Path]
) -> None:
    folder = shared_data("hippocampus_dicom") / "study1"
    orthanc.upload(folder)
    run(orthanc, predictor, tmp_path / "pacs")
    source = FolderSource(folder)
    list(
        segment_archive(
            source, predictor=predictor, out_dir=tmp_path / "folder", format="dicom-seg"
        )
    )
    first, second = (
        pydicom.dcmread(path)
        for name in ("pacs", "folder")
        for path in (tmp_path / name / "segmentations").glob("*.dcm")
    )
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.PixelData == second.PixelData
    assert first == second


def test_wrong_password_is_told_plainly(orthanc: Orthanc) -> None:
    service = DicomWeb(orthanc.dicomweb_url, USER, "wrong", RetryPolicy(attempts=1))
    with pytest.raises(ServiceError, match="HTTP 401"):
        list(DicomWebSource(service).studies())
