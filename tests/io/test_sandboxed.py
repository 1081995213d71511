"""Compiled decoders get a process of their own; everything else is read here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from pydicom.uid import JPEGLSLossless
from volumes_in_space import volume

from segmed.errors import ImageError
from segmed.io import grid_of, read_image, read_images, read_label, source_of, write_label
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.series import scan
from segmed.io.dicom.write import write_series
from segmed.io.isolated import load_isolated
from segmed.io.read import load_label
from segmed.structures import LabelClass


@pytest.fixture
def crashing_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every Python that is started die at once, as by a decoder."""
    deadly = tmp_path / "python"
    deadly.write_text("#!/bin/sh\nkill -SEGV $$\n", encoding="utf-8")
    deadly.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deadly))


def compressed_series(folder: Path) -> Path:
    for path in write_series(folder, volume(np.eye(3))):
        dataset = pydicom.dcmread(path)
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.save_as(path)
    return folder


def test_compressed_series_is_the_same_from_another_process(tmp_path: Path) -> None:
    compressed_series(tmp_path / "series")
    write_series(tmp_path / "other", volume(np.eye(3)))  # what lies beside plays no part
    direct, sandboxed = (
        read_image(tmp_path / "series", trusted=trusted) for trusted in (True, False)
    )
    assert torch.equal(sandboxed.as_tensor(), direct.as_tensor())
    assert torch.equal(sandboxed.affine, direct.affine)
    assert source_of(sandboxed) == source_of(direct)


def test_audit_knows_which_series_are_compressed(tmp_path: Path) -> None:
    write_series(tmp_path / "plain", volume(np.eye(3)))
    (plain,) = scan(tmp_path / "plain")
    (compressed,) = scan(compressed_series(tmp_path / "compressed"))
    assert not plain.is_encapsulated
    assert compressed.is_encapsulated


@pytest.mark.usefixtures("crashing_processes")
def test_crash_of_a_decoder_is_an_error_of_its_file(tmp_path: Path) -> None:
    compressed_series(tmp_path / "series")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    for name in ("series", "a.png"):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert caught.value.reason == "decoder_crashed"


@pytest.mark.usefixtures("crashing_processes")
def test_plain_files_start_no_process(tmp_path: Path, oblique_volume: MetaTensor) -> None:
    write_series(tmp_path / "series", oblique_volume)
    label = (oblique_volume.as_tensor()[0] > 2000).to(torch.int32)
    for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.mha"):
        write_label(tmp_path / name, label, like=oblique_volume)
        assert read_image(tmp_path / name).shape == oblique_volume.shape
    first = next((tmp_path / "series").iterdir())
    assert torch.equal(
        read_image(tmp_path / "series").as_tensor(),
        read_image(tmp_path / "series", trusted=True).as_tensor(),
    )
    with pytest.raises(ImageError) as caught:
        read_image(first.with_name("absent"))
    assert caught.value.reason == "missing_file"


def test_labels_are_read_sandboxed_too(
    tmp_path: Path, two_labels: tuple[LabelClass, LabelClass]
) -> None:
    write_series(tmp_path / "series", volume(np.eye(3)))
    image = read_image(tmp_path / "series")
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    label[2:5, 2:5, 2:4] = 5
    path = write_dicom_seg(
        tmp_path / "seg.dcm",
        label,
        like=image,
        labels=two_labels,
        model_name="a",
        model_version="1",
    )
    for loaded in (
        load_label(path, grid=grid_of(image)),
        load_isolated(path, exact=True, grid=grid_of(image)),
    ):
        np.testing.assert_array_equal(loaded.array[0], label.numpy())
        np.testing.assert_array_equal(loaded.affine_ras, np.asarray(image.affine))
    packed = compressed_series(tmp_path / "packed")
    direct = read_label(packed, trusted=True)
    assert torch.equal(read_label(packed).as_tensor(), direct.as_tensor())
    Image.fromarray(np.full((8, 9), 3, np.uint8)).save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png").unique().tolist() == [3]


def test_channels_are_read_sandboxed_too(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((8, 9), ord(name[0]), np.uint8)).save(tmp_path / name)
    image = read_images([tmp_path / "a.png", tmp_path / "b.png"])
    assert image.shape == (2, 8, 9)
    assert image[:, 0, 0].tolist() == [97.0, 98.0]
