"""Structure sets as label maps of the image that they are drawn on: equal, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from pydicom.uid import generate_uid

from segmed.errors import GeometryError, ImageError
from segmed.io import read_image, read_label
from segmed.io.dicom.rtstruct import write_rtstruct
from segmed.io.dicom.write import write_series
from segmed.structures import LabelClass

SHAPE = (14, 12, 5)
PLAIN = (LabelClass(name="Left_Kidney", value=2), LabelClass(name="tumour", value=7))
REGIONS = (
    LabelClass(name="whole", value=1, region=(1, 3, 300)),
    LabelClass(name="core", value=3, region=(3, 300)),
    LabelClass(name="enhancing", value=300),
)
MODEL = {"model_name": "unet", "model_version": "3f2a"}


@pytest.fixture
def image(tmp_path: Path) -> MetaTensor:
    """A series of an oblique scan."""
    angle = np.deg2rad(20.0)
    affine = np.diag([-0.8, -0.8, 3.0, 1.0])
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    voxels = np.random.default_rng(0).normal(300, 50, (1, *SHAPE)).round().astype(np.float32)
    turned = torch.from_numpy(turn @ affine)
    write_series(tmp_path / "series", MetaTensor(torch.from_numpy(voxels), affine=turned))
    return read_image(tmp_path / "series")


def plain() -> np.ndarray:
    """Two structures: one with a hole and a voxel apart, the other inside that hole."""
    label = np.zeros(SHAPE, np.int32)
    label[2:9, 2:9, 1:4] = 2
    label[4:7, 4:7, 1:4] = 0
    label[5, 5, 2] = 7
    label[12, 10, 0] = 2
    return label


def nested() -> np.ndarray:
    """Three regions, each within the one before."""
    label = np.zeros(SHAPE, np.int32)
    label[1:10, 1:10, 1:4], label[2:7, 2:7, 1:4], label[3:6, 3:6, 2] = 1, 3, 300
    return label


def drawn(path: Path, label: np.ndarray, image: MetaTensor, labels: tuple[LabelClass, ...]) -> Path:
    """The label map as a structure set."""
    return write_rtstruct(path, torch.from_numpy(label), like=image, labels=labels, **MODEL)


@pytest.mark.parametrize(
    ("label", "labels"),
    [(plain(), PLAIN), (nested(), REGIONS), (plain() * 0, PLAIN)],
    ids=["hole and island", "nested regions", "nothing"],
)
def test_structure_set_gives_the_label_map_back(
    label: np.ndarray, labels: tuple[LabelClass, ...], image: MetaTensor, tmp_path: Path
) -> None:
    path = drawn(tmp_path / "x.rtstruct.dcm", label, image, labels)
    found = read_label(path, like=image, labels=labels)
    np.testing.assert_array_equal(np.asarray(found)[0], label)
    np.testing.assert_allclose(found.affine, image.affine)
    # Structures are matched by the words of their names, in whatever order.
    turned = tuple(
        one.model_copy(update={"name": one.name.replace("_", " ").upper()})
        for one in reversed(labels)
    )
    if not any(one.region for one in labels):
        again = read_label(path, like=image, labels=turned)
        np.testing.assert_array_equal(np.asarray(again)[0], label)


def test_structure_set_that_does_not_fit_is_refused_by_name(
    image: MetaTensor, tmp_path: Path
) -> None:
    path = drawn(tmp_path / "x.dcm", plain(), image, PLAIN)
    with pytest.raises(ImageError, match="not images") as without:
        read_label(path)
    assert without.value.reason == "not_image"
    with pytest.raises(ImageError, match="'tumour': no label has this name") as unknown:
        read_label(path, like=image, labels=PLAIN[:1])
    assert unknown.value.reason == "unknown_segment"
    shifted = image[..., :2]
    with pytest.raises(GeometryError, match="on no slice of the image"):
        read_label(path, like=shifted, labels=PLAIN)


@pytest.mark.parametrize("fault", ["overlap", "space", "spaces", "twice"])
def test_damaged_structure_set_is_refused(fault: str, image: MetaTensor, tmp_path: Path) -> None:
    path = drawn(tmp_path / "x.dcm", plain(), image, PLAIN)
    dataset = pydicom.dcmread(path)
    regions = dataset.StructureSetROISequence
    if fault == "overlap":
        dataset.ROIContourSequence[1].ContourSequence = dataset.ROIContourSequence[
            0
        ].ContourSequence
    elif fault == "twice":
        regions[1].ROIName = regions[0].ROIName
    else:
        other = generate_uid()
        for region in regions if fault == "space" else regions[:1]:
            region.ReferencedFrameOfReferenceUID = other
    dataset.save_as(path)
    with pytest.raises(ImageError) as refused:
        read_label(path, like=image, labels=PLAIN)
    assert (
        refused.value.reason
        == {
            "overlap": "overlapping_segments",
            "space": "mixed_frame_of_reference",
            "spaces": "other_frame",
            "twice": "same_segments",
        }[fault]
    )
