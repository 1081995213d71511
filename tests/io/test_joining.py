"""Joined images are of one patient, study and space; others are refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from volumes_in_space import blobs

from segmed.errors import ImageError
from segmed.io import read_image, read_images, read_label, source_of, write_label
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.io.read import notes_of
from segmed.manifest import Case, Channel, Manifest, check_manifest
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass

LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=5))


def of_another_patient(dataset: Dataset) -> None:
    dataset.PatientID = "SEGMED-0002"


def of_another_study(dataset: Dataset) -> None:
    dataset.StudyInstanceUID += ".1"


def of_another_space(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID += ".1"


STRANGERS = [
    (of_another_patient, "mixed_patient"),
    (of_another_study, "mixed_study"),
    (of_another_space, "mixed_frame_of_reference"),
]


@pytest.fixture
def folder(tmp_path: Path, oblique_volume: MetaTensor) -> Path:
    """A series `t1`, a second one `t2` that belongs to it, and its segmentation."""
    write_series(tmp_path / "t1", oblique_volume)
    second(tmp_path, "t2", lambda dataset: None)
    image = read_image(tmp_path / "t1")
    label = blobs(tuple(image.shape[1:]))
    write_dicom_seg(
        tmp_path / "label.dcm", label, like=image, labels=LABELS, model_name="m", model_version="1"
    )
    return tmp_path


def second(folder: Path, name: str, change: Callable[[Dataset], None]) -> Path:
    """A second series on the grid of `t1`, changed in every file."""
    (folder / name).mkdir()
    for path in (folder / "t1").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID += ".2"
        dataset.SOPInstanceUID += ".2"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        change(dataset)
        dataset.save_as(folder / name / path.name, enforce_file_format=True)
    return folder / name


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(("change", "reason"), STRANGERS)
def test_channels_of_strangers_are_refused(
    folder: Path,
    change: Callable[[Dataset], None],
    reason: str,
    *,
    trusted: bool,
) -> None:
    assert read_images([folder / "t1", folder / "t2"], trusted=trusted).shape[0] == 2
    with pytest.raises(ImageError) as caught:
        read_images([folder / "t1", second(folder, "other", change)], trusted=trusted)
    assert caught.value.reason == reason


def test_channels_are_compared_when_one_is_decoded_in_a_process_of_its_own(folder: Path) -> None:
    def compressed(dataset: Dataset) -> None:
        dataset.compress(RLELossless)

    def compressed_stranger(dataset: Dataset) -> None:
        compressed(dataset)
        of_another_patient(dataset)

    second(folder, "rle", compressed)
    joined = read_images([folder / "t1", folder / "rle"])
    assert np.array_equal(joined[0], joined[1])
    second(folder, "stranger", compressed_stranger)
    with pytest.raises(ImageError, match="two patients"):
        read_images([folder / "t1", folder / "stranger"])


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(("change", "reason"), STRANGERS)
def test_label_of_another_patient_is_refused(
    folder: Path,
    change: Callable[[Dataset], None],
    reason: str,
    *,
    trusted: bool,
) -> None:
    image = read_image(folder / "t1")
    assert read_label(folder / "label.dcm", like=image, trusted=trusted).shape == image.shape
    dataset = pydicom.dcmread(folder / "label.dcm")
    change(dataset)
    dataset.save_as(folder / "stranger.dcm", enforce_file_format=True)
    with pytest.raises(ImageError) as caught:
        read_label(folder / "stranger.dcm", like=image, trusted=trusted)
    assert caught.value.reason == reason


def test_check_names_a_label_of_another_patient(folder: Path) -> None:
    dataset = pydicom.dcmread(folder / "label.dcm")
    of_another_patient(dataset)
    dataset.save_as(folder / "stranger.dcm", enforce_file_format=True)
    cases = [
        Case(id=name, group=name, image=("t1",), label=f"{name}.dcm")
        for name in ("label", "stranger")
    ]
    manifest = Manifest(
        name="mixed",
        labels=LABELS,
        channels=(Channel(name="T1", modality="MR"),),
        training=tuple(cases),
        root=folder,
    )
    found = {(fault.case_id, fault.code) for fault in check_manifest(manifest)}
    assert ("stranger", "mixed_patient") in found
    assert ("label", "mixed_patient") not in found


def test_volume_files_state_no_patient_and_join_with_anything(folder: Path) -> None:
    image = read_image(folder / "t1")
    path = write_label(folder / "label.nii.gz", blobs(tuple(image.shape[1:])), like=image)
    joined = read_images([folder / "t1", path])
    source = source_of(joined)
    assert source is not None
    assert [other.format for other in source.other_channels] == ["nifti"]
    assert read_label(path, like=image).shape == image.shape


def test_notes_of_all_channels_are_said_once_and_others_with_their_channel(folder: Path) -> None:
    def inverted(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    def inverted_and_lossy(dataset: Dataset) -> None:
        inverted(dataset)
        dataset.LossyImageCompression = "01"

    second(folder, "inverted", inverted)
    second(folder, "both", inverted_and_lossy)
    first, other = (read_image(folder / name) for name in ("inverted", "both"))
    [shared] = notes_of(first)
    [own] = set(notes_of(other)) - {shared}
    joined = read_images([folder / "inverted", folder / "both"])
    assert notes_of(joined) == (shared, f"channel 2: {own}")
    joined = read_images([folder / "t1", folder / "inverted"])
    assert notes_of(joined) == (f"channel 2: {shared}",)
