"""Segments of DICOM segmentations become labels by name and code, whatever their numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from pydicom.uid import JPEGLSLossless, RLELossless
from volumes_in_space import ORIENTATIONS, volume

from segmed.errors import ImageError
from segmed.io import read_image, read_label
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.structures import Code, LabelClass

MODEL = {"model_name": "unet", "model_version": "3f2a"}
LIVER = Code(scheme="SCT", value="10200004", meaning="Liver")
SPLEEN = Code(scheme="SCT", value="78961009", meaning="Spleen")
LABELS = (
    LabelClass(name="liver", value=1, code=LIVER),
    LabelClass(name="spleen", value=2, code=SPLEEN),
    LabelClass(name="left_kidney", value=7),
)


@pytest.fixture
def image(tmp_path: Path) -> MetaTensor:
    write_series(tmp_path / "series", volume(ORIENTATIONS["axial"]))
    return read_image(tmp_path / "series")


def three_blocks(image: MetaTensor) -> torch.Tensor:
    label = torch.zeros(tuple(image.shape[1:]), dtype=torch.int32)
    label[0:2, 0:2, 0:2], label[3:5, 3:5, 2:4], label[6:8, 4:6, 4:6] = 1, 2, 7
    return label


def foreign(path: Path, change: Callable[[pydicom.Dataset], None] | None = None) -> Path:
    """An object as others write it: without our notes of label values."""
    dataset = pydicom.dcmread(path)
    for item in dataset.SegmentSequence:
        del item.SegmentDescription
    if change is not None:
        change(dataset)
    dataset.save_as(path)
    return path


def written(path: Path, image: MetaTensor, *order: int) -> Path:
    """The three blocks as segments in another order."""
    labels = [next(label for label in LABELS if label.value == value) for value in order]
    return write_dicom_seg(path, three_blocks(image), like=image, labels=labels, **MODEL)


@pytest.mark.parametrize("order", [(1, 2, 7), (7, 2, 1), (2, 7, 1)])
def test_the_order_of_segments_plays_no_part(
    tmp_path: Path, image: MetaTensor, order: tuple[int, ...]
) -> None:
    path = foreign(written(tmp_path / "seg.dcm", image, *order))
    found = read_label(path, like=image, labels=LABELS, trusted=True)
    assert torch.equal(found.as_tensor()[0], three_blocks(image))
    sandboxed = read_label(path, like=image, labels=LABELS)
    assert torch.equal(sandboxed.as_tensor(), found.as_tensor())


def test_our_own_note_of_a_value_is_no_match_either(tmp_path: Path, image: MetaTensor) -> None:
    path = written(tmp_path / "seg.dcm", image, 1, 2, 7)
    others = [label.model_copy(update={"value": label.value + 10}) for label in LABELS]
    found = read_label(path, like=image, labels=others)
    assert set(found.unique().tolist()) == {0, 11, 12, 17}


@pytest.mark.parametrize("name", ["Left Kidney", "LEFT-KIDNEY", " left_kidney "])
def test_case_and_separators_of_names_play_no_part(
    tmp_path: Path, image: MetaTensor, name: str
) -> None:
    def rename(dataset: pydicom.Dataset) -> None:
        dataset.SegmentSequence[2].SegmentLabel = name

    path = foreign(written(tmp_path / "seg.dcm", image, 1, 2, 7), rename)
    found = read_label(path, like=image, labels=LABELS)
    assert torch.equal(found.as_tensor()[0], three_blocks(image))


def test_a_modifier_is_a_part_of_the_name(tmp_path: Path, image: MetaTensor) -> None:
    def modify(dataset: pydicom.Dataset) -> None:
        item = dataset.SegmentSequence[2]
        item.SegmentLabel = "kidney"
        left = hd.sr.CodedConcept("7771000", "SCT", "Left")
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [left]

    path = foreign(written(tmp_path / "seg.dcm", image, 1, 2, 7), modify)
    assert 7 in read_label(path, like=image, labels=LABELS).unique()


def refused(path: Path, image: MetaTensor) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_label(path, like=image, labels=LABELS)
    return caught.value


def test_a_segment_of_another_name_is_refused(tmp_path: Path, image: MetaTensor) -> None:
    def rename(dataset: pydicom.Dataset) -> None:
        dataset.SegmentSequence[0].SegmentLabel = "Leber"

    error = refused(foreign(written(tmp_path / "seg.dcm", image, 1, 2, 7), rename), image)
    assert error.reason == "unknown_segment"
    assert "'Leber'" in str(error)
    assert "liver, spleen" in str(error)


def test_a_name_with_the_code_of_another_concept_is_refused(
    tmp_path: Path, image: MetaTensor
) -> None:
    def recode(dataset: pydicom.Dataset) -> None:
        dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = SPLEEN.value

    error = refused(foreign(written(tmp_path / "seg.dcm", image, 1, 2, 7), recode), image)
    assert error.reason == "unknown_segment"
    assert LIVER.value in str(error)


def test_two_segments_of_one_name_are_refused(tmp_path: Path, image: MetaTensor) -> None:
    def double(dataset: pydicom.Dataset) -> None:
        first, second = dataset.SegmentSequence[0], dataset.SegmentSequence[1]
        second.SegmentLabel = first.SegmentLabel
        del second.SegmentedPropertyTypeCodeSequence

    path = foreign(written(tmp_path / "seg.dcm", image, 1, 2, 7), double)
    assert refused(path, image).reason == "same_segments"


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless])
def test_label_maps_are_matched_as_well(
    tmp_path: Path, image: MetaTensor, syntax: str | None
) -> None:
    binary = pydicom.dcmread(written(tmp_path / "seg.dcm", image, 7, 1, 2))
    described = [hd.seg.SegmentDescription.from_dataset(s) for s in binary.SegmentSequence]
    for item in described:
        del item.SegmentDescription
    numbers = np.zeros(tuple(image.shape[1:]), np.uint8)
    for number, value in enumerate((7, 1, 2), 1):
        numbers[three_blocks(image).numpy() == value] = number
    sources = [pydicom.dcmread(path) for path in sorted((tmp_path / "series").iterdir())]
    sources.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    options = {} if syntax is None else {"transfer_syntax_uid": syntax}
    labelmap = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.ascontiguousarray(numbers.transpose(2, 1, 0)),
        segmentation_type="LABELMAP",
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="0",
        **options,
    )
    labelmap.save_as(tmp_path / "map.dcm")
    found = read_label(tmp_path / "map.dcm", like=image, labels=LABELS)
    assert torch.equal(found.as_tensor()[0], three_blocks(image))
