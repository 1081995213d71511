"""Limit of voxels: of a call, of the environment, and where neither says anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from segmed.errors import ImageError, UsageError
from segmed.io import ReadLimits, read_image
from segmed.io.isolated import load_isolated
from segmed.io.limits import MOST_VOXELS, VOXELS_VARIABLE, most_voxels
from segmed.io.read import as_image


def read_image_isolated(path: Path, **bounds: Any) -> MetaTensor:
    """An image of any format, read in a process of its own."""
    return as_image(load_isolated(path, **bounds))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of 60 voxels."""
    path = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((5, 4, 3), np.float32), np.eye(4)), path)
    return path


def test_call_stands_above_the_environment_and_that_above_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VOXELS_VARIABLE, raising=False)
    assert most_voxels(ReadLimits()) == MOST_VOXELS
    monkeypatch.setenv(VOXELS_VARIABLE, "70")
    assert most_voxels(ReadLimits()) == 70
    assert most_voxels(ReadLimits(max_voxels=7)) == 7


@pytest.mark.parametrize("read", [read_image, read_image_isolated])
def test_environment_limits_reading_here_and_in_a_process_apart(
    image: Path, monkeypatch: pytest.MonkeyPatch, read: object
) -> None:
    assert callable(read)
    monkeypatch.setenv(VOXELS_VARIABLE, "59")
    with pytest.raises(ImageError, match=r"--max-voxels 60 .*SEGMED_MAX_VOXELS=60"):
        read(image)
    monkeypatch.setenv(VOXELS_VARIABLE, "60")
    assert read(image).numel() == 60


@pytest.mark.parametrize("text", ["many", "-5", "0", "1e9"])
def test_environment_that_is_no_number_of_voxels_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(VOXELS_VARIABLE, text)
    with pytest.raises(UsageError, match="SEGMED_MAX_VOXELS"):
        most_voxels(ReadLimits())
