"""Archives of real and of small images, sound and broken, and a model to segment them with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_model import tiny_package

from segmed.inference import Predictor
from segmed.io.dicom.write import Identity, write_series


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """The tiny model, loaded in this process."""
    torch.set_num_threads(1)
    return Predictor(tiny_package(), device="cpu", engine="torch")


@pytest.fixture(scope="session")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model on disk, for worker processes."""
    return tiny_package().save(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="session")
def make_volume() -> Callable[..., MetaTensor]:
    """Gives a small volume of seeded whole numbers, 1 mm."""

    def make(seed: int = 0, shape: tuple[int, int, int] = (12, 10, 8)) -> MetaTensor:
        voxels = np.random.default_rng(seed).integers(0, 900, size=(1, *shape))
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, 3] = torch.tensor([-20.0, 15.0, 4.0])
        return MetaTensor(torch.from_numpy(voxels.astype(np.float32)), affine=affine)

    return make


@pytest.fixture(scope="session")
def write_nifti(make_volume: Callable[..., MetaTensor]) -> Callable[..., Path]:
    """Writes a small NIfTI file."""

    def write(path: Path, seed: int = 0, shape: tuple[int, int, int] = (12, 10, 8)) -> Path:
        volume = make_volume(seed, shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(volume.numpy()[0], np.asarray(volume.affine)), path)
        return path

    return write


@pytest.fixture(scope="session")
def write_dicom(make_volume: Callable[..., MetaTensor]) -> Callable[..., list[Path]]:
    """Writes a small DICOM series of a patient."""

    def write(
        folder: Path,
        seed: int = 0,
        *,
        patient: str = "",
        omit: tuple[int, ...] = (),
        shape: tuple[int, int, int] = (12, 10, 8),
    ) -> list[Path]:
        identity = Identity(patient_id=patient or f"SEGMED-{seed:04d}")
        return write_series(folder, make_volume(seed, shape), identity=identity, omit_slices=omit)

    return write
