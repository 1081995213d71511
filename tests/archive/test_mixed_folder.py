"""A folder that mixes patients' files under random names, with other files among them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from segmed.archive import FolderSource, NotImage, Study, archive_status, segment_archive
from segmed.inference import Predictor
from segmed.io import read_label


@pytest.fixture
def mixed_folder(tmp_path: Path, write_dicom: Callable[..., list[Path]]) -> Path:
    """Series of three patients, one spread over two folders; a text, a picture, a PR object."""
    root, names = tmp_path / "mixed", random.Random(3)
    (root / "more").mkdir(parents=True)
    for seed, patient in enumerate(["ANNA", "BERTA", "CLARA"]):
        for number, path in enumerate(write_dicom(tmp_path / patient, seed, patient=patient)):
            folder = root / "more" if patient == "CLARA" and number % 2 else root
            shutil.move(path, folder / f"{names.getrandbits(64):016x}")
    (root / "0000notes").write_text("Visit of ANNA", encoding="utf-8")
    (root / "ffff.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    state = pydicom.dcmread(next(p for p in root.iterdir() if len(p.name) == 16))
    state.Modality, state.SOPClassUID = "PR", "1.2.840.10008.5.1.4.1.1.11.1"
    state.SOPInstanceUID = state.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    state.SeriesInstanceUID = "1.2.3"
    del state.PixelData
    state.save_as(root / "presentation")
    return root


def test_files_are_put_together_by_what_is_inside_them(mixed_folder: Path) -> None:
    items = list(FolderSource(mixed_folder).studies())
    studies = [item for item in items if isinstance(item, Study)]
    others = [item for item in items if isinstance(item, NotImage)]
    assert len(studies) == 3
    for study in studies:
        assert study.fault is None
        patients = {str(pydicom.dcmread(path).PatientID) for path in study.files}
        assert len(patients) == 1
        assert len(study.files) == 8
    assert sorted(item.place for item in others) == ["0000notes", "ffff.png", "presentation"]


def test_each_result_belongs_to_the_patient_of_its_images(
    mixed_folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    run = segment_archive(
        FolderSource(mixed_folder), predictor=predictor, out_dir=out, format="dicom-seg"
    )
    assert [outcome.status for outcome in run] == ["done"] * 3
    inputs = {}
    for path in mixed_folder.rglob("*"):
        if path.is_file() and len(path.name) == 16:
            dataset = pydicom.dcmread(path)
            inputs[str(dataset.SOPInstanceUID)] = dataset
    for path in (out / "segmentations").glob("*.dcm"):
        result = pydicom.dcmread(path)
        referenced = {
            str(item.ReferencedSOPInstanceUID)
            for item in result.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        }
        assert len(referenced) == 8
        assert {inputs[uid].PatientID for uid in referenced} == {result.PatientID}
        assert {inputs[uid].StudyInstanceUID for uid in referenced} == {result.StudyInstanceUID}
        assert np.asarray(read_label(path)).shape[1:] == (12, 10, 8)
    status = archive_status(out)
    assert (status.files_in_studies, status.files_without_image) == (24, 3)


def test_series_that_holds_two_patients_is_refused(
    tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    dataset = pydicom.dcmread(files[4])
    dataset.PatientID = "SOMEBODY-ELSE"
    dataset.save_as(files[4])
    [study] = FolderSource(tmp_path / "series").studies()
    assert isinstance(study, Study)
    assert study.fault is not None
    assert study.fault.reason == "mixed_patient"


def test_damaged_file_beside_one_series_is_held_against_it(
    tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    files[-1].write_bytes(b"")  # an end slice: the rest would look whole
    [study] = FolderSource(tmp_path / "series").studies()
    assert isinstance(study, Study)
    assert study.fault is not None
    assert study.fault.reason == "empty_file"


def test_own_outputs_hidden_files_and_circular_links_are_no_studies(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    root = tmp_path / "archive"
    write_nifti(root / "a.nii.gz", 1)
    write_nifti(root / ".trash/b.nii.gz", 2)
    (root / "loop").symlink_to(root, target_is_directory=True)
    out = root / "results"
    for _ in range(2):
        outcomes = list(segment_archive(FolderSource(root), predictor=predictor, out_dir=out))
        assert [outcome.status for outcome in outcomes] == ["done"]
    status = archive_status(out)
    assert (status.files_in_studies, status.files_without_image) == (1, 2)
