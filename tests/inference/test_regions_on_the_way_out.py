"""Regions in label maps, their cleaning, and the files and objects that show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor

from segmed.encoding import LabelEncoding
from segmed.errors import ImageError
from segmed.inference.label_map import certain_background, label_values
from segmed.inference.postprocessing import cleaned
from segmed.inference.sliding import WindowRecipe, sliding_slabs
from segmed.io import read_image, read_label, write_label
from segmed.io.dicom.rtstruct import write_rtstruct
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.plan import Inference
from segmed.structures import LabelClass

WHOLE = LabelClass(name="whole tumour", value=1, region=(1, 3, 300))
CORE = LabelClass(name="core", value=3, region=(3, 300))
ENHANCING = LabelClass(name="enhancing", value=300)
REGIONS = (WHOLE, CORE, ENHANCING)
ENCODING = LabelEncoding(REGIONS)
MODEL = {"model_name": "unet", "model_version": "3f2a"}


def test_regions_are_painted_in_their_order_above_one_half() -> None:
    probs = torch.tensor(
        [[0.9, 0.6, 0.5, 0.2, 0.1], [0.1, 0.8, 0.9, 0.7, 0.5], [0, 0.4, 0.6, 0, 0]]
    )
    values = label_values(probs.float(), ENCODING)
    assert values.tolist() == [1, 3, 300, 3, 0]
    assert not certain_background(ENCODING, (2, 2)).any()


def test_windows_without_a_body_have_no_region() -> None:
    recipe = WindowRecipe((4, 4), 0.0, skip_empty=True, has_background=False)
    volume = torch.zeros(1, 8, 4)
    volume[0, :4] = torch.rand(4, 4)
    slabs = sliding_slabs(lambda windows: windows.expand(-1, 3, -1, -1) + 1, volume, recipe)
    first, second = (slab.values.clone() for slab in slabs)
    assert first.min() >= 1
    assert not second.any()


def shells() -> np.ndarray:
    label = np.zeros((12, 12), np.uint16)
    label[1:9, 1:9], label[2:7, 2:7], label[3:6, 3:6] = 1, 3, 300
    label[8, 8] = 3  # a stray voxel of the core within the whole
    label[4, 4] = 1  # a hole in the core that is still tumour
    label[11, 11] = 300  # a stray voxel of all three
    return label


def test_cleaning_a_region_works_on_all_that_lies_in_it() -> None:
    rules = Inference(keep_largest=(1, 3), fill_holes=(3,))
    found = cleaned(shells(), rules, REGIONS)
    assert found[11, 11] == 0
    assert found[8, 8] == 1  # no core, still in the whole
    assert found[4, 4] == 3
    assert (found == 300).sum() == 8


@pytest.fixture
def image(tmp_path: Path) -> MetaTensor:
    rng = np.random.default_rng(0)
    affine = torch.diag(torch.tensor([-1.0, -1.0, 3.0, 1.0], dtype=torch.float64))
    voxels = torch.from_numpy(rng.normal(300, 50, (1, 12, 12, 4)).astype(np.float32).round())
    write_series(tmp_path / "series", MetaTensor(voxels, affine=affine))
    return read_image(tmp_path / "series")


def volume() -> torch.Tensor:
    return torch.from_numpy(np.repeat(shells()[:, :, None], 4, axis=2).astype(np.int32))


def test_a_dicom_segmentation_has_each_region_whole(tmp_path: Path, image: MetaTensor) -> None:
    path = write_dicom_seg(tmp_path / "seg.dcm", volume(), like=image, labels=REGIONS, **MODEL)
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array
    numbers = [
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    voxels = np.bincount(numbers, weights=frames.reshape(len(frames), -1).sum(1))[1:]
    assert voxels.tolist() == [int(one.mask(volume()).sum()) for one in REGIONS]
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == [one.name for one in REGIONS]
    for labels in (REGIONS, REGIONS[::-1]):
        back = read_label(path, like=image, labels=labels)
        assert torch.equal(back.as_tensor()[0], volume())
    flat = [one.model_copy(update={"region": ()}) for one in REGIONS]
    with pytest.raises(ImageError, match="overlap"):
        read_label(path, like=image, labels=flat)


def test_a_structure_set_has_each_region_whole(tmp_path: Path, image: MetaTensor) -> None:
    solid = volume()
    solid[4, 4] = 300  # without a hole
    solid[8, 8], solid[11, 11] = 1, 0
    path = write_rtstruct(tmp_path / "rt.dcm", solid, like=image, labels=REGIONS, **MODEL)
    dataset = pydicom.dcmread(path)
    for item, region in zip(dataset.ROIContourSequence, REGIONS, strict=True):
        points = np.array(item.ContourSequence[0].ContourData, float).reshape(-1, 3)
        width = np.ptp(points[:, 0])
        assert width == pytest.approx(int(region.mask(solid)[:, :, 0].any(1).sum()), abs=1.01)


def test_names_in_a_nrrd_say_what_a_value_shows(tmp_path: Path, image: MetaTensor) -> None:
    path = write_label(tmp_path / "label.nrrd", volume(), like=image, labels=REGIONS)
    header = path.read_bytes().split(b"\n\n")[0].decode()
    assert "Segment0_Name:=whole tumour without core\n" in header
    assert "Segment1_Name:=core without enhancing\n" in header
    assert "Segment2_LabelValue:=300" in header
