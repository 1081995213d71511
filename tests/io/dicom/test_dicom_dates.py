"""DICOM results are dated by their source images: equal input and model give equal bytes."""

from __future__ import annotations

import time
from pathlib import Path

import pydicom
import pytest
from monai.data import MetaTensor
from volumes_in_space import blobs

from segmed.io import read_image
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.rtstruct import write_rtstruct
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.structures import LabelClass

Labels = tuple[LabelClass, LabelClass]
MODEL = {"model_name": "unet", "model_version": "3f2a"}


def test_equal_input_and_model_give_equal_bytes_whatever_the_clock_says(
    oblique_volume: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    label = blobs(tuple(image.shape[1:]))
    written: dict[str, set[bytes]] = {"seg": set(), "rt": set()}
    for pause_s in (1.1, 0.0):
        for kind, write in (("seg", write_dicom_seg), ("rt", write_rtstruct)):
            path = write(tmp_path / "x.dcm", label, like=image, labels=two_labels, **MODEL)
            written[kind].add(path.read_bytes())
        time.sleep(pause_s)
    assert {kind: len(contents) for kind, contents in written.items()} == {"seg": 1, "rt": 1}


@pytest.mark.parametrize(
    ("changes", "moment"),
    [
        ({}, ("20000101", "120000")),
        ({"SeriesDate": "20050607", "SeriesTime": "081500.250"}, ("20050607", "081500")),
        ({"SeriesDate": "1992.04.02", "SeriesTime": "08:15"}, ("19920402", "081500")),
        ({"SeriesDate": "", "StudyDate": "20040506", "StudyTime": "2561"}, ("20040506", "000000")),
        ({"SeriesDate": "20051332", "StudyDate": ""}, ("20000101", "120000")),
        ({"SeriesDate": "", "StudyDate": "", "ContentDate": ""}, ("19000101", "000000")),
    ],
)
def test_results_are_dated_by_their_source_images(
    oblique_volume: MetaTensor,
    tmp_path: Path,
    two_labels: Labels,
    changes: dict[str, str],
    moment: tuple[str, str],
) -> None:
    with tolerant_pydicom():
        for file in write_series(tmp_path / "series", oblique_volume):
            dataset = pydicom.dcmread(file)
            for name, value in changes.items():
                dataset[name].value = value
            dataset.save_as(file)
    image = read_image(tmp_path / "series")
    label = blobs(tuple(image.shape[1:]))
    path = write_dicom_seg(tmp_path / "seg.dcm", label, like=image, labels=two_labels, **MODEL)
    seg = pydicom.dcmread(path)
    assert (seg.ContentDate, seg.ContentTime) == moment
    assert (seg.InstanceCreationDate, seg.InstanceCreationTime) == moment
    for item in seg.ContributingEquipmentSequence:
        assert item.get("ContributionDateTime", "".join(moment)) == "".join(moment)
    path = write_rtstruct(tmp_path / "rt.dcm", label, like=image, labels=two_labels, **MODEL)
    structures = pydicom.dcmread(path)
    assert (structures.StructureSetDate, structures.StructureSetTime) == moment


@pytest.mark.parametrize(("stated", "kept"), [("X", ""), ("f ", "F"), ("M", "M"), ("Male", "")])
def test_an_unknown_sex_does_not_prevent_a_result(
    oblique_volume: MetaTensor, tmp_path: Path, two_labels: Labels, stated: str, kept: str
) -> None:
    with tolerant_pydicom():
        for file in write_series(tmp_path / "series", oblique_volume):
            dataset = pydicom.dcmread(file)
            dataset.PatientSex = stated
            dataset.save_as(file)
    image = read_image(tmp_path / "series")
    label = blobs(tuple(image.shape[1:]))
    for write in (write_dicom_seg, write_rtstruct):
        path = write(tmp_path / "x.dcm", label, like=image, labels=two_labels, **MODEL)
        assert pydicom.dcmread(path).PatientSex == kept
