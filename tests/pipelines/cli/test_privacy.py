"""Identifiers of patients are in no file and no output of an archive run."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor

from segmed.io.atomic import PRIVATE
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.write import write_series

PLANTED = {
    "PatientName": "Muster^Anneliese",
    "PatientID": "PID778812",
    "PatientBirthDate": "19471103",
    "PatientAddress": "Sonnenhang",
    "OtherPatientIDs": "OPID334455",
    "AccessionNumber": "ACC5566123",
    "ReferringPhysicianName": "Zweistein^Ottokar",
    "InstitutionName": "Klinik Seeblick",
    "StudyDescription": "Verlaufskontrolle Muster",
    "SeriesDescription": "Kopf von Anneliese",
    "ProtocolName": "Protokoll Zweistein",
    "StudyID": "STD90817",
    "StudyDate": "19870214",
    "SeriesDate": "19870215",
    "StudyInstanceUID": "1.2.276.0.7230010.3.1.2.4711471147",
}
"""Attributes of every planted file, none of which occurs anywhere else by chance."""

SERIES_ROOT = "1.2.276.0.7230010.3.1.3.8822882288"
"""Start of the planted series and instance UIDs."""

WORDS = tuple(
    word.encode()
    for word in (
        *(part for value in PLANTED.values() for part in value.replace("^", " ").split()),
        SERIES_ROOT,
        "Zweitpatient",
    )
    if word not in {"Kopf", "von"}
)
FOLDER_WORD = b"Ordnermann"
"""A name in the paths of the inputs, which only files of the owner may hold."""

OWNERS_FILES = ("index.csv", "outcomes.json", "volumes.csv")
"""Files of a run that name its inputs, readable to their owner alone; the ledger is the other."""

SIDE = 12
Change = Callable[[pydicom.Dataset, int], None]


def keep(dataset: pydicom.Dataset, index: int) -> None:
    """A sound series."""


def change_patient(dataset: pydicom.Dataset, index: int) -> None:
    if index == 3:
        dataset.PatientName, dataset.PatientID = "Zweitpatient^Anneliese", "PID778812-Zweitpatient"


def repeat_instance(dataset: pydicom.Dataset, index: int) -> None:
    if index == 4:
        dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.3"


def lose_position(dataset: pydicom.Dataset, index: int) -> None:
    if index == 5:
        del dataset.ImagePositionPatient


def mix_studies(dataset: pydicom.Dataset, index: int) -> None:
    """One slice says that it is of another study: the series is refused."""
    if index == 2:
        dataset.StudyInstanceUID += ".9"
        dataset.FrameOfReferenceUID = f"{SERIES_ROOT}.77"


def spoil_values(dataset: pydicom.Dataset, index: int) -> None:
    """Values that break the standard's rules, about which libraries tell by quoting them."""
    dataset.PatientBirthDate, dataset.StudyTime = "19471103Anneliese", "PID778812"
    dataset.PatientID, dataset.AccessionNumber = "PID778812" * 9, "ACC5566123-ACC5566123"


def plant_series(folder: Path, seed: int, change: Change = keep) -> list[Path]:
    """A series whose headers name a patient, from a volume of noise."""
    voxels = np.random.default_rng(seed).integers(0, 900, (1, SIDE, SIDE, 8)).astype(np.float32)
    affine = torch.eye(4, dtype=torch.float64)
    files = [
        path.rename(path.with_name(f"{FOLDER_WORD.decode()}_{index}.dcm"))
        for index, path in enumerate(
            write_series(folder, MetaTensor(torch.from_numpy(voxels), affine=affine))
        )
    ]
    for index, path in enumerate(files):
        with tolerant_pydicom():
            plant_file(path, f"{SERIES_ROOT}.{seed}", index, change)
    return files


def plant_file(path: Path, series_uid: str, index: int, change: Change) -> None:
    dataset = pydicom.dcmread(path)
    for name, value in PLANTED.items():
        setattr(dataset, name, value)
    dataset.SeriesInstanceUID = series_uid
    dataset.SOPInstanceUID = f"{series_uid}.{index}"
    change(dataset, index)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound and unsound series of one patient, and NIfTI files whose headers name the same."""
    root = tmp_path_factory.mktemp("inputs") / "archive"
    changes = (keep, spoil_values, change_patient, repeat_instance, lose_position, mix_studies)
    for seed, change in enumerate(changes, start=1):
        plant_series(root / f"{FOLDER_WORD.decode()}_{seed}", seed, change)
    plant_series(root / "gap", 11)[3].unlink()
    cut = plant_series(root / "cut", 12)[4]
    cut.write_bytes(cut.read_bytes()[:-300])
    for name in ("sound", "broken"):
        voxels = np.random.default_rng(20).integers(0, 900, (SIDE, SIDE, 8)).astype(np.int16)
        image = nib.Nifti1Image(voxels, np.eye(4))
        image.header["descrip"] = b"Muster^Anneliese 19471103"
        image.header["aux_file"] = b"PID778812"
        image.header["db_name"] = b"ACC5566123"
        nib.save(image, root / f"{name}.nii")
    broken = root / "broken.nii"
    broken.write_bytes(broken.read_bytes()[:-5])
    return root


def contents(folder: Path, *, only_names_of: str = "nothing") -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder: where it is, and its name with its bytes, unzipped.

    Args:
        folder: The folder.
        only_names_of: Suffix of files whose bytes are left out.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            raw = b"" if path.suffix == only_names_of else path.read_bytes()
            raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
            yield path, str(path.relative_to(folder)).encode() + raw


def leaks(content: bytes) -> list[bytes]:
    return [word for word in WORDS if word in content]


def is_for_the_owner(path: Path, out: Path) -> bool:
    """True for a file of a run that may hold paths and UIDs, and is readable to its owner alone."""
    is_known = path.name.startswith("ledger.sqlite") or path.name in OWNERS_FILES
    return path.parent == out and is_known and path.stat().st_mode & 0o777 == PRIVATE


@pytest.mark.parametrize(
    ("output_format", "num_done"), [("nifti", 3), ("dicom-seg", 2), ("rtstruct", 2)]
)
def test_archive_run_tells_no_identifier(
    archive: Path,
    package_folder: Path,
    tmp_path: Path,
    run: Callable[..., bytes],
    output_format: str,
    num_done: int,
) -> None:
    out = tmp_path / "out"
    asked = ["--model", package_folder, "--out", out, "--format", output_format]
    told = run("archive", "segment", archive, *asked, status=1)
    told += run("archive", "segment", archive, *asked, "--json", status=1)
    told += run("archive", "status", out, status=0)
    outcomes = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    assert sum(entry["status"] == "done" for entry in outcomes) == num_done
    assert sum(entry["status"] == "refused" for entry in outcomes) >= 7
    assert (out / "report.html").exists()
    assert not leaks(told)
    assert FOLDER_WORD not in told
    # A derived DICOM object belongs to its patient, by purpose; its file's name does not.
    for path, content in contents(out, only_names_of=".dcm"):
        if not is_for_the_owner(path, out):
            assert not leaks(content), path.name
            assert FOLDER_WORD not in content, path.name


def test_predicting_single_images_tells_no_identifier(
    archive: Path, package_folder: Path, tmp_path: Path, run: Callable[..., bytes]
) -> None:
    out = tmp_path / "out"
    asked = ["--model", package_folder, "--out", out, "--engine", "torch"]
    told = run("predict", archive, *asked, status=1)
    outcomes = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["outcomes"]
    assert sum(entry["status"] == "done" for entry in outcomes) == 3
    assert not leaks(told)
    for path, content in contents(out):
        assert not leaks(content), path.name


def test_planted_words_are_found_where_they_are(archive: Path) -> None:
    """The search itself works: each word is in the inputs."""
    inputs = b"".join(content for _, content in contents(archive))
    assert set(leaks(inputs)) == set(WORDS)
    assert FOLDER_WORD in inputs


def test_ledger_is_readable_to_its_owner_alone(
    archive: Path, package_folder: Path, tmp_path: Path, run: Callable[..., bytes]
) -> None:
    run("archive", "segment", archive / "gap", "--model", package_folder, "-o", tmp_path, status=1)
    modes = [path.stat().st_mode & 0o077 for path in tmp_path.glob("ledger.sqlite")]
    assert modes == [0]
