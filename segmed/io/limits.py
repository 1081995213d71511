"""Limits on the size and geometry of files, checked before a voxel is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmed.errors import GeometryError, ImageError, UsageError
from segmed.geometry import Affine, spacing_of

SHEAR_TOLERANCE = 2e-3
"""Largest cosine between two index axes that still count as perpendicular (about 0.1 degrees)."""


VOXELS_VARIABLE = "SEGMED_MAX_VOXELS"
"""Environment variable: voxels of the largest image that is read, for a program and its children.

The commands set it for `--max-voxels`."""

MOST_VOXELS = 1 << 29
"""Voxels of the largest image that is read by default."""


@dataclass(frozen=True)
class ReadLimits:
    """Bounds on one image; they are checked on its header, before its voxels are read.

    Attributes:
        max_voxels: Largest number of voxels of one image, all channels counted; None:
            `SEGMED_MAX_VOXELS` where it is set, else `MOST_VOXELS`.
        max_header_bytes: Largest text header (NRRD, MetaImage).
        min_spacing_mm: Smallest believable voxel edge, in mm.
        max_spacing_mm: Largest believable voxel edge, in mm.
    """

    max_voxels: int | None = None
    max_header_bytes: int = 1 << 20
    min_spacing_mm: float = 1e-3
    max_spacing_mm: float = 200.0


DEFAULT_LIMITS = ReadLimits()


def most_voxels(limits: ReadLimits) -> int:
    """Voxels of the largest image that these limits let pass.

    Raises:
        UsageError: The environment variable is not a positive integer.
    """
    if limits.max_voxels is not None:
        return limits.max_voxels
    text = os.environ.get(VOXELS_VARIABLE, "")
    if not text:
        return MOST_VOXELS
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(
            f"{VOXELS_VARIABLE} is {text!r}; give a number of voxels, such as {MOST_VOXELS}"
        )
    return int(text)


def check_size(shape: Sequence[int], limits: ReadLimits, path: Path) -> int:
    """Refuse a shape that is empty or beyond the limits.

    Args:
        shape: Voxels along each axis as the header states them.
        limits: The bounds.
        path: The file, for the message.

    Returns:
        The number of voxels.

    Raises:
        ImageError: `empty_axis` or `too_large`.
    """
    voxels = 1
    for edge in shape:
        if edge < 1:
            raise ImageError(
                f"{path.name}: the header states the shape {tuple(shape)}; every axis needs a "
                "voxel",
                reason="empty_axis",
                paths=[path],
            )
        voxels *= int(edge)
    most = most_voxels(limits)
    if voxels > most:
        raise ImageError(
            f"{path.name}: the header states {voxels} voxels, the limit is {most}; crop or "
            f"resample it, or, if the file is trusted, allow that many: --max-voxels {voxels} (or "
            f"{VOXELS_VARIABLE}={voxels}; in Python ReadLimits(max_voxels={voxels}))",
            reason="too_large",
            paths=[path],
        )
    return voxels


def out_of_memory(path: Path) -> ImageError:
    """The error for a file within the limits that needs more memory than there is."""
    return ImageError(
        f"{path.name}: reading it needs more memory than there is; free some, or allow more",
        reason="out_of_memory",
        paths=[path],
    )


def check_affine(affine_ras: Affine, limits: ReadLimits, path: Path) -> None:
    """Refuse an affine that is not a placement of a rectangular grid in millimetres.

    Args:
        affine_ras: 4x4, voxel indices to RAS+ mm.
        limits: The believable voxel edges.
        path: The file, for the message.

    Raises:
        GeometryError: `bad_affine`, `absurd_spacing` or `shear`.
    """
    if not np.isfinite(affine_ras).all():
        raise GeometryError(
            f"{path.name}: the affine contains numbers that are not finite; rewrite its header",
            reason="bad_affine",
            paths=[path],
        )
    edges = spacing_of(affine_ras)
    if min(edges) < limits.min_spacing_mm or max(edges) > limits.max_spacing_mm:
        raise GeometryError(
            f"{path.name}: the voxel edges are {tuple(float(f'{e:.6g}') for e in edges)} mm, "
            f"believable are {limits.min_spacing_mm} to {limits.max_spacing_mm} mm; "
            "correct the header",
            reason="absurd_spacing",
            paths=[path],
        )
    directions = affine_ras[:3, :3] / np.asarray(edges)
    cosine = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if cosine > SHEAR_TOLERANCE:
        raise GeometryError(
            f"{path.name}: the grid is sheared (axes {np.degrees(np.arccos(min(cosine, 1))):.1f} "
            "degrees apart instead of 90); resample it to a rectangular grid first",
            reason="shear",
            paths=[path],
        )


def check_finite(array: np.ndarray, path: Path) -> None:
    """Refuse voxels that are NaN or infinite.

    Raises:
        ImageError: `non_finite`.
    """
    if array.size and np.isfinite(array.min()) and np.isfinite(array.max()):
        return  # the usual case, without a mask as large as the image
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ImageError(
            f"{path.name}: {bad} of {array.size} voxels are NaN or infinite; "
            "replace them in the source",
            reason="non_finite",
            paths=[path],
        )
