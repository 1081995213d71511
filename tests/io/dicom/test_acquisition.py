"""Scanner, protocol, age and sex in headers, without words that name persons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from pydicom.dataset import Dataset

from segmed.io.dicom.acquisition import Acquisition, acquisition_at, acquisition_in
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.write import write_series


def header(**values: object) -> Dataset:
    found = Dataset()
    with tolerant_pydicom():
        for keyword, value in values.items():
            setattr(found, keyword, value)
    return found


def test_device_and_sequence_of_a_magnet() -> None:
    found = acquisition_in(
        header(
            Manufacturer="ACME",
            ManufacturerModelName="One",
            MagneticFieldStrength="3",
            MRAcquisitionType="3D",
            ScanningSequence=["GR", "IR"],
            ProtocolName="head",
            PatientAge="063Y",
            PatientSex="f",
        )
    )
    assert found == Acquisition("ACME One 3 T", "3D GR IR", "head", 63.0, "F")


def test_voltage_and_kernel_of_a_ct() -> None:
    found = acquisition_in(header(Manufacturer="ACME", KVP="120", ConvolutionKernel="B30f"))
    assert (found.scanner, found.protocol, found.age, found.sex) == (
        "ACME",
        "120 kV B30f",
        None,
        "",
    )


@pytest.mark.parametrize(
    ("values", "age"),
    [
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientBirthDate": "19500101", "StudyDate": "20200101"}, 70.0),
        ({"PatientBirthDate": "19500101"}, None),
        ({"PatientAge": "sixty"}, None),
        ({"PatientAge": "999Y"}, None),
        ({"PatientBirthDate": "20300101", "StudyDate": "20200101"}, None),
    ],
)
def test_age(values: dict[str, str], age: float | None) -> None:
    found = acquisition_in(header(**values)).age
    assert found == (None if age is None else pytest.approx(age, abs=0.01))


def test_words_that_name_persons_are_removed_from_all_texts() -> None:
    found = acquisition_in(
        header(
            PatientName="Muster^Anneliese",
            OperatorsName="Zweistein^Ottokar",
            Manufacturer="ACME muster",
            ManufacturerModelName="Ottokar-5",
            ConvolutionKernel="ANNELIESE Seeblick",
            InstitutionName="Klinik Seeblick",
            InstitutionAddress="Uferweg 7",
            InstitutionalDepartmentName="Wolkenstein",
            ScanningSequence="GR Uferweg Wolkenstein",
        )
    )
    text = f"{found.scanner} {found.protocol}".casefold()
    named = ("muster", "anneliese", "ottokar", "seeblick", "uferweg", "wolkenstein")
    assert not [name for name in named if name in text]
    assert "acme" in text


def test_first_dicom_file_of_a_folder_counts_and_others_are_passed_over(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 90, (1, 8, 8, 4)).astype(np.float32)
    image = MetaTensor(torch.from_numpy(voxels), affine=torch.eye(4, dtype=torch.float64))
    for path in write_series(tmp_path / "series", image):
        dataset = pydicom.dcmread(path)
        dataset.Manufacturer = "ACME"
        dataset.save_as(path)
    (tmp_path / "series" / "a.txt").write_text("Manufacturer: Bolt", encoding="utf-8")
    found = acquisition_at(tmp_path / "series")
    assert found is not None
    assert found.scanner == "ACME"
    assert acquisition_at(tmp_path / "series" / "a.txt") is None
    assert acquisition_at(tmp_path / "absent") is None
