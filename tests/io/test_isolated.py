"""Untrusted files are read in a process that may die."""

from __future__ import annotations

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from volumes_in_space import volume

from segmed.errors import GeometryError, ImageError
from segmed.io import read_image, read_label, source_of, write_label
from segmed.io.dicom_write import write_series
from segmed.io.isolated import read_image_isolated, read_label_isolated


def test_the_child_gives_the_same_image_as_the_reader(
    oblique_volume: MetaTensor, tmp_path: Path
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    direct = read_image(tmp_path / "series")
    isolated = read_image_isolated(tmp_path / "series")
    assert torch.equal(isolated.as_tensor(), direct.as_tensor())
    assert torch.equal(isolated.affine, direct.affine)
    assert source_of(isolated) == source_of(direct)


def test_the_child_reads_labels_and_keeps_the_header(tmp_path: Path) -> None:
    image = volume(np.eye(3))
    label = (image.as_tensor()[0] > 2000).to(torch.int32)
    path = write_label(tmp_path / "a.nii.gz", label, like=image)
    isolated = read_label_isolated(path)
    assert torch.equal(isolated.as_tensor(), read_label(path).as_tensor())
    again = write_label(tmp_path / "b.nii.gz", label, like=isolated)
    assert again.read_bytes() == path.read_bytes()


def test_refusals_come_back_as_they_are(tmp_path: Path) -> None:
    write_series(tmp_path, volume(np.eye(3)), omit_slices=[3])
    with pytest.raises(GeometryError) as caught:
        read_image_isolated(tmp_path)
    assert caught.value.reason == "missing_slice"
    assert caught.value.paths


def test_a_hang_is_stopped(tmp_path: Path) -> None:
    pipe = tmp_path / "series"
    pipe.mkdir()
    write_series(pipe, volume(np.eye(3)))
    before = time.monotonic()
    with pytest.raises(ImageError) as caught:
        read_image_isolated(pipe, timeout_s=0.05)  # less than a process needs to start
    assert caught.value.reason == "decoder_hung"
    assert time.monotonic() - before < 5


def test_a_child_without_memory_is_an_error_of_the_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((160,) * 3, np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ImageError) as caught:
        read_image_isolated(tmp_path / "a.nii.gz", memory_gb=0.02)
    assert caught.value.reason in {"out_of_memory", "decoder_crashed"}
