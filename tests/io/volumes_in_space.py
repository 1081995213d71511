"""Volumes and label maps made in memory, in the orientations that scanners give."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from segmed.geometry import reorientation


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Rotation about x, then y, then z, 3x3."""
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def volume(
    axes: np.ndarray, spacing: tuple[float, float, float] = (0.8, 1.1, 2.5), seed: int = 0
) -> MetaTensor:
    """A volume of whole numbers with given axis directions (columns, RAS)."""
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(spacing)
    affine[:3, 3] = (-31.5, 12.25, 7.125)
    values = np.random.default_rng(seed).integers(0, 4000, (1, 9, 7, 6)).astype(np.float32)
    return MetaTensor(torch.from_numpy(values), affine=torch.from_numpy(affine))


ORIENTATIONS = {
    "axial": np.diag([-1.0, -1.0, 1.0]),
    "sagittal": np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    "coronal": np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
    "oblique": rotation((12.0, -33.0, 71.0)),
    "negated": np.diag([1.0, -1.0, -1.0]),
    "left-handed": np.diag([1.0, 1.0, -1.0]),
}


def blobs(shape: tuple[int, ...]) -> torch.Tensor:
    """A label map with 1 and 5, a hole, a single voxel and empty end slices."""
    label = torch.zeros(shape, dtype=torch.int32)
    i, j, k = (n // 2 for n in shape)
    label[1:i, 1 : j + 1, 1:k] = 1
    label[2, 2, 1:k] = 0
    label[i + 1 :, j:, k : shape[2] - 1] = 5
    label[0, -1, k] = 5
    return label


def in_ras(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A volume with its axes brought to RAS order."""
    change = reorientation(affine, "RAS")
    turned = nib.orientations.apply_orientation(values, change)
    return turned, affine @ nib.orientations.inv_ornt_aff(change, values.shape)


def image_in_ras(image: MetaTensor) -> tuple[np.ndarray, np.ndarray]:
    return in_ras(image.numpy()[0], np.asarray(image.affine))
