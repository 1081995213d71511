"""Remarks on odd inputs beside their results, without identifiers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from segmed.archive import FolderSource, segment_archive
from segmed.archive.outcomes import SHARED
from segmed.inference import Predictor, predict_files

Change = Callable[[Dataset], None]


def lossy(dataset: Dataset) -> None:
    dataset.LossyImageCompression = "01"


def too_few(dataset: Dataset) -> None:
    dataset.ImagesInAcquisition = 99


def inverted(dataset: Dataset) -> None:
    dataset.PhotometricInterpretation = "MONOCHROME1"


def odd_numbers(dataset: Dataset) -> None:
    dataset.InstanceNumber = 10 * int(dataset.InstanceNumber)


def burned_in(dataset: Dataset) -> None:
    dataset.BurnedInAnnotation = "YES"


ODD = [
    (burned_in, "its pixels may show text about the patient"),
    (lossy, "compressed with loss"),
    (too_few, "made 99 images, 8 were found"),
    (inverted, "MONOCHROME1"),
    (odd_numbers, "instance numbers run from"),
]


@pytest.fixture
def write_odd(write_dicom: Callable[..., list[Path]]) -> Callable[[Path, Change], Path]:
    """Writes a series that is odd in some way, though sound."""

    def write(folder: Path, change: Change) -> Path:
        for path in write_dicom(folder, 3, patient="MUSTER-0815"):
            dataset = pydicom.dcmread(path)
            change(dataset)
            dataset.save_as(path, enforce_file_format=True)
        return folder

    return write


@pytest.mark.parametrize(("change", "words"), ODD)
def test_archive_run_says_it_in_outcomes_page_table_and_object(
    tmp_path: Path,
    predictor: Predictor,
    write_odd: Callable[[Path, Change], Path],
    change: Change,
    words: str,
) -> None:
    write_odd(tmp_path / "archive/s", change)
    out = tmp_path / "out"
    source = FolderSource(tmp_path / "archive")
    [outcome] = segment_archive(source, predictor=predictor, out_dir=out, format="dicom-seg")
    [written] = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    assert words in outcome.notes[0]
    assert written["notes"] == list(outcome.notes)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert words in page
    with (out / "volumes.csv").open(encoding="utf-8") as stream:
        [row] = csv.DictReader(stream)
    assert words in row["notes"]
    assert words in pydicom.dcmread(out / str(outcome.output)).ImageComments
    assert "MUSTER" not in page + json.dumps(written) + row["notes"]
    [again] = segment_archive(source, predictor=predictor, out_dir=out, format="dicom-seg")
    assert again.notes == outcome.notes


@pytest.mark.parametrize(("change", "words"), ODD)
def test_prediction_says_it_in_its_outcome(
    tmp_path: Path,
    predictor: Predictor,
    write_odd: Callable[[Path, Change], Path],
    change: Change,
    words: str,
) -> None:
    folder = write_odd(tmp_path / "s", change)
    [outcome] = predict_files(predictor, [folder], tmp_path / "out")
    assert outcome.status == "done"
    assert words in outcome.notes[0]


def test_sound_input_has_no_notes(
    tmp_path: Path, predictor: Predictor, write_dicom: Callable[..., list[Path]]
) -> None:
    write_dicom(tmp_path / "archive/s", 3)
    out = tmp_path / "out"
    [outcome] = segment_archive(
        FolderSource(tmp_path / "archive"), predictor=predictor, out_dir=out
    )
    assert outcome.notes == ()
    assert "Remarks" not in (out / "report.html").read_text(encoding="utf-8")


def test_copies_of_one_image_say_that_they_share_an_output(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    for place in ("a", "b"):
        write_nifti(tmp_path / f"archive/{place}/x.nii.gz", 1)
    write_nifti(tmp_path / "archive/c/x.nii.gz", 2)
    out = tmp_path / "out"
    for _ in range(2):
        list(segment_archive(FolderSource(tmp_path / "archive"), predictor=predictor, out_dir=out))
        rows = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
        assert [row["notes"] for row in rows] == [[SHARED.format(2)], [SHARED.format(2)], []]


def test_page_has_no_picture_of_pixels_that_show_text(
    tmp_path: Path, predictor: Predictor, write_odd: Callable[[Path, Change], Path]
) -> None:
    for name, change in (("shown", lossy), ("hidden", burned_in)):
        write_odd(tmp_path / name / "s", change)
        source = FolderSource(tmp_path / name)
        list(segment_archive(source, predictor=predictor, out_dir=tmp_path / f"{name}-out"))
    assert "data:image/webp" in (tmp_path / "shown-out/report.html").read_text(encoding="utf-8")
    page = (tmp_path / "hidden-out/report.html").read_text(encoding="utf-8")
    assert "data:image/webp" not in page
    assert "may show text about the patient" in page
