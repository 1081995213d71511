"""Patients are told apart by PatientID, and without one by name and date of birth."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from segmed.io.dicom.header import TAGS, read_header, tolerant_pydicom
from segmed.io.dicom.quick import quick_header
from segmed.io.dicom.series import scan
from segmed.io.dicom.write import write_series
from segmed.metatensor import MetaTensor

Change = Callable[[Dataset], None]


def with_id(dataset: Dataset) -> None:
    dataset.PatientID = "4711"


def named(name: str, born: str = "", charset: str = "ISO_IR 192") -> Change:
    def change(dataset: Dataset) -> None:
        dataset.PatientID = ""
        dataset.SpecificCharacterSet = charset
        dataset.PatientName, dataset.PatientBirthDate = name, born

    return change


def nameless(dataset: Dataset) -> None:
    dataset.pop("PatientID", None)
    dataset.PatientName = dataset.PatientBirthDate = ""


STATED = [
    with_id,
    named("Muster^Anna"),
    named("Muster^Anna", "19500101"),
    named("Müller^Jörg"),
    named("山田^太郎"),
    named("Muster^Anna\\Muster^Berta"),
    nameless,
]


@pytest.fixture
def files(tmp_path: Path, oblique_volume: MetaTensor) -> list[Path]:
    """The slices of a small series."""
    return write_series(tmp_path / "series", oblique_volume)


def key_of(path: Path, change: Change, *, quick: bool = True) -> str:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    header = read_header(path, quick=quick)
    assert header is not None
    return header.patient_key


def test_each_statement_is_a_patient_of_its_own(files: list[Path]) -> None:
    keys = [key_of(files[0], change) for change in STATED]
    assert len(set(keys)) == len(STATED)


@pytest.mark.parametrize("change", STATED)
def test_both_header_readers_give_one_key(files: list[Path], change: Change) -> None:
    assert key_of(files[0], change) == key_of(files[0], change, quick=False)


def test_name_counts_only_without_an_id(files: list[Path]) -> None:
    def renamed(dataset: Dataset) -> None:
        with_id(dataset)
        dataset.PatientName = "Muster^Anna^^Dr"

    assert key_of(files[0], with_id) == key_of(files[0], renamed)


def test_names_in_other_scripts_keep_the_quick_way(files: list[Path]) -> None:
    key_of(files[0], named("山田^太郎"))
    content = files[0].read_bytes()
    assert quick_header(io.BytesIO(content), len(content), TAGS) is not None


def test_slice_of_another_name_is_refused(files: list[Path]) -> None:
    for path in files:
        key_of(path, named("Muster^Anna"))
    [audit] = scan(files[0].parent)
    assert audit.usable
    key_of(files[-1], named("Muster^Berta"))
    [audit] = scan(files[0].parent)
    assert audit.reason == "mixed_patient"


def anonymised(name: str, born: str = "") -> Change:
    def change(dataset: Dataset) -> None:
        dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = "ANON", name, born

    return change


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (anonymised("P1"), anonymised("P2"), "mixed_patient"),
        (anonymised("", "19500101"), anonymised("", "19700101"), "mixed_patient"),
        (anonymised("Muster^Anna", "19500101"), anonymised("Muster^Berta"), "mixed_patient"),
        (anonymised("Muster^Anna", "19500101"), anonymised("", ""), None),
        (anonymised("Muster^Anna"), anonymised("MUSTER^ANNA^^Dr"), None),
        (anonymised("", "1950.01.01"), anonymised("", "19500101"), None),
    ],
)
def test_one_id_of_several_people_is_refused(
    files: list[Path], first: Change, second: Change, reason: str | None
) -> None:
    with tolerant_pydicom():
        for number, path in enumerate(files):
            key_of(path, first if number < len(files) // 2 else second)
    [audit] = scan(files[0].parent)
    assert audit.reason == reason
