"""Fixtures: small image sets in the layouts that manifests are built from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SaveNifti = Callable[..., Path]


@pytest.fixture(scope="session")
def save_nifti() -> SaveNifti:
    """Writes an array as a NIfTI file, by default a random image of 5 x 6 x 4 voxels."""

    def save(
        path: Path,
        array: np.ndarray | None = None,
        *,
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        seed: int = 0,
    ) -> Path:
        if array is None:
            array = np.random.default_rng(seed).normal(100, 20, (5, 6, 4)).astype(np.float32)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.diag([*spacing_mm, 1.0])), path)
        return path

    return save


@pytest.fixture
def paired_set(tmp_path: Path, save_nifti: SaveNifti) -> Path:
    """Eight cases in `images/` and `labels/`, each label with values 1 and 2."""
    for number in range(8):
        name = f"p{number // 2}_s{number % 2}.nii.gz"
        save_nifti(tmp_path / "set" / "images" / name, seed=number)
        label = np.zeros((5, 6, 4), dtype=np.uint8)
        label[1:3, 2:4, 1] = 1
        label[3, 2:4, 1:3] = 2
        save_nifti(tmp_path / "set" / "labels" / name, label)
    return tmp_path / "set"


def stored_along(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    """The same voxels at the same places, stored along other axes, such as `ASL`."""
    wanted = nib.orientations.axcodes2ornt(codes)
    start = nib.io_orientation(image.affine)
    return image.as_reoriented(nib.orientations.ornt_transform(start, wanted))
