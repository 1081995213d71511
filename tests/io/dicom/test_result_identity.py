"""Identifiers of DICOM results: functions of patient, study, series, content and model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from volumes_in_space import blobs

from segmed.io import read_image, read_images
from segmed.io.dicom.rtstruct import write_rtstruct
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass

LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=5))
MODEL = {"model_name": "unet", "model_version": "3f2a"}
WRITERS = {"seg": write_dicom_seg, "rtstruct": write_rtstruct}
Change = Callable[[Dataset], None]


def other_patient(dataset: Dataset) -> None:
    dataset.PatientID = "SEGMED-0002"


def other_study(dataset: Dataset) -> None:
    dataset.StudyInstanceUID += ".1"


def other_series(dataset: Dataset) -> None:
    dataset.SeriesInstanceUID += ".1"


def other_pixels(dataset: Dataset) -> None:
    pixels = np.array(dataset.pixel_array)
    pixels[0, 0] ^= 1
    dataset.PixelData = pixels.tobytes()


def other_place(dataset: Dataset) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [float(x) + 3, y, z]


def other_scale(dataset: Dataset) -> None:
    dataset.RescaleSlope, dataset.RescaleIntercept = "2", "0"


def other_instances(dataset: Dataset) -> None:
    dataset.SOPInstanceUID += ".1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def other_words(dataset: Dataset) -> None:
    dataset.SeriesDescription = "renamed by an archive"
    dataset.InstitutionName = "elsewhere"


@pytest.fixture
def series(tmp_path: Path, oblique_volume: MetaTensor) -> Path:
    """A small series."""
    write_series(tmp_path / "series", oblique_volume)
    return tmp_path / "series"


def changed(folder: Path, change: Change) -> Path:
    """A copy of a series, changed in every file."""
    copy = folder.with_name(change.__name__)
    copy.mkdir()
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(copy / path.name, enforce_file_format=True)
    return copy


def identifiers(folder: Path, kind: str, like: MetaTensor | None = None) -> tuple[str, ...]:
    """Series and instance UID of a result, and further UIDs that it makes up."""
    image = read_image(folder) if like is None else like
    label = blobs(tuple(image.shape[1:]))
    path = folder.parent / f"{folder.name}.{kind}.dcm"
    dataset = pydicom.dcmread(WRITERS[kind](path, label, like=image, labels=LABELS, **MODEL))
    own = [dataset.SeriesInstanceUID, dataset.SOPInstanceUID]
    if kind == "seg":
        own.append(dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID)
    return tuple(map(str, own))


@pytest.mark.parametrize("kind", sorted(WRITERS))
@pytest.mark.parametrize(
    "change",
    [
        other_patient, other_study, other_series, other_pixels, other_place, other_scale,
        other_instances,
    ],
)  # fmt: skip
def test_other_input_gives_other_identifiers(series: Path, kind: str, change: Change) -> None:
    before, after = identifiers(series, kind), identifiers(changed(series, change), kind)
    assert not set(before) & set(after)


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_words_on_an_image_leave_the_identifiers(series: Path, kind: str) -> None:
    assert identifiers(series, kind) == identifiers(changed(series, other_words), kind)


def test_pixels_of_a_deflated_file_count(series: Path) -> None:
    def deflated(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    def deflated_and_changed(dataset: Dataset) -> None:
        other_pixels(dataset)
        deflated(dataset)

    before = identifiers(changed(series, deflated), "seg")
    assert before != identifiers(changed(series, deflated_and_changed), "seg")


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_second_channel_counts(series: Path, kind: str) -> None:
    def second(dataset: Dataset) -> None:
        other_series(dataset)
        other_instances(dataset)

    def second_changed(dataset: Dataset) -> None:
        second(dataset)
        other_pixels(dataset)

    found = set()
    for change in (second, second_changed):
        image = read_images([series, changed(series, change)])
        found.add(identifiers(series, kind, image))
    assert len(found) == 2


def lossy(dataset: Dataset) -> None:
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = "12"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"


def too_few(dataset: Dataset) -> None:
    dataset.ImagesInAcquisition = 99


def inverted(dataset: Dataset) -> None:
    dataset.PhotometricInterpretation = "MONOCHROME1"


@pytest.mark.parametrize(
    ("change", "words"),
    [(lossy, "compressed with loss"), (too_few, "made 99 images"), (inverted, "MONOCHROME1")],
)
def test_results_state_what_was_odd_about_their_input(
    series: Path, change: Change, words: str
) -> None:
    folder = changed(series, change)
    identifiers(folder, "seg")
    identifiers(folder, "rtstruct")
    seg = pydicom.dcmread(folder.with_name(f"{folder.name}.seg.dcm"))
    rtstruct = pydicom.dcmread(folder.with_name(f"{folder.name}.rtstruct.dcm"))
    assert words in seg.ImageComments
    assert words in rtstruct.StructureSetDescription
    assert (seg.get("LossyImageCompression") == "01") is (change is lossy)


def test_results_of_sound_input_have_no_remark(series: Path) -> None:
    identifiers(series, "seg")
    seg = pydicom.dcmread(series.with_name("series.seg.dcm"))
    assert "ImageComments" not in seg


def test_remark_of_a_second_channel_names_the_channel(series: Path) -> None:
    def second(dataset: Dataset) -> None:
        other_series(dataset)
        other_instances(dataset)
        lossy(dataset)

    image = read_images([series, changed(series, second)])
    assert isinstance(image.as_tensor(), torch.Tensor)
    path = series.with_name("joined.dcm")
    write_dicom_seg(path, blobs(tuple(image.shape[1:])), like=image, labels=LABELS, **MODEL)
    assert pydicom.dcmread(path).ImageComments.startswith("channel 2: compressed with loss")
