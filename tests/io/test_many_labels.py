"""More than 255 structures pass through every format that is written without wrapping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from volumes_in_space import ORIENTATIONS, volume

from segmed.errors import ImageError
from segmed.io import read_image, read_label, write_label
from segmed.io.dicom.rtstruct import write_rtstruct
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.structures import LabelClass

NUMBER = 300
LABELS = tuple(LabelClass(name=f"s{value}", value=value) for value in range(1, NUMBER + 1))
MODEL = {"model_name": "unet", "model_version": "3f2a"}


def counted(shape: tuple[int, ...]) -> torch.Tensor:
    """Every value from 1 to 300 in a voxel of its own, the rest background."""
    label = torch.zeros(shape, dtype=torch.int32)
    label.view(-1)[:NUMBER] = torch.arange(1, NUMBER + 1, dtype=torch.int32)
    return label


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_volumes_keep_300_values(tmp_path: Path, suffix: str) -> None:
    image = volume(ORIENTATIONS["axial"])
    label = counted(tuple(image.shape[1:]))
    back = read_label(write_label(tmp_path / f"l{suffix}", label, like=image))
    assert torch.equal(back.as_tensor()[0], label)


def test_a_png_keeps_300_values(tmp_path: Path) -> None:
    image = MetaTensor(torch.zeros(1, 20, 21), affine=torch.eye(4, dtype=torch.float64))
    label = counted((20, 21))
    back = read_label(write_label(tmp_path / "l.png", label, like=image))
    assert torch.equal(back.as_tensor()[0], label)


def test_a_value_beyond_16_bits_is_refused(tmp_path: Path) -> None:
    image = volume(ORIENTATIONS["axial"])
    label = counted(tuple(image.shape[1:]))
    label[-1, -1, -1] = 65536
    with pytest.raises(ImageError, match="65536"):
        write_label(tmp_path / "l.nii", label, like=image)


def test_dicom_results_keep_300_structures(tmp_path: Path) -> None:
    write_series(tmp_path / "series", volume(ORIENTATIONS["axial"]))
    image = read_image(tmp_path / "series")
    label = counted(tuple(image.shape[1:]))
    seg = write_dicom_seg(tmp_path / "seg.dcm", label, like=image, labels=LABELS, **MODEL)
    assert torch.equal(read_label(seg, like=image).as_tensor()[0], label)
    drawn = write_rtstruct(tmp_path / "rt.dcm", label, like=image, labels=LABELS, **MODEL)
    regions = pydicom.dcmread(drawn).ROIContourSequence
    assert len(regions) == NUMBER
    assert all(len(region.ContourSequence) == 1 for region in regions)
    assert np.unique([region.ReferencedROINumber for region in regions]).size == NUMBER
