"""Write results on the exact grid of the image that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from segmed.errors import GeometryError, UsageError
from segmed.formats import WRITTEN_SUFFIXES, written_as
from segmed.io.label import smallest_type
from segmed.io.metaimage import write_metaimage
from segmed.io.nifti_write import write_nifti
from segmed.io.nrrd import write_nrrd
from segmed.io.raster import write_png
from segmed.io.read import grid_of, source_of
from segmed.io.results import LABEL_MARK, PROBS_MARK
from segmed.metatensor import MetaTensor

if TYPE_CHECKING:
    from segmed.structures import LabelClass


def write_label(
    path: Path | str,
    label: torch.Tensor,
    *,
    like: MetaTensor,
    labels: Sequence[LabelClass] = (),
) -> Path:
    """Write a label map; the file appears whole or not at all.

    Args:
        path: `.nii`, `.nii.gz`, `.nrrd`, `.mha`, or for 2D `.png`.
        label: `[*spatial]` or `[1, *spatial]`, whole numbers from 0 to 65535.
        like: The image it belongs to. Its header geometry is kept: a NIfTI result of a NIfTI image
            has the same shape, sform, qform, codes and units, byte for byte.
        labels: Names of the values, written where the format has a place for them (NRRD).

    Returns:
        `path`.

    Raises:
        GeometryError: The label has another shape than the image.
        ImageError: A value is not a label.
        UsageError: The suffix is unknown.
    """
    path = Path(path)
    array = _on_grid(label, like, path)
    return _write(path, smallest_type(array, path), like, labels)


def write_probabilities(path: Path | str, probs: torch.Tensor, *, like: MetaTensor) -> Path:
    """Write class probabilities as float32; the file appears whole or not at all.

    Args:
        path: `.nii` or `.nii.gz`.
        probs: `[C, *spatial]`.
        like: The image they belong to.

    Returns:
        `path`. The class axis is the file's last one.

    Raises:
        GeometryError: The probabilities have another shape than the image.
        UsageError: The suffix is unknown.
    """
    path = Path(path)
    row = written_as(path)
    if row is None or row.name != "nifti":
        raise UsageError(f"probabilities are written as .nii or .nii.gz, got {path.name}")
    array = torch.as_tensor(probs).detach().cpu().numpy().astype(np.float32)
    grid = grid_of(like)
    if array.shape[1:] != grid.shape:
        raise GeometryError(f"probabilities {array.shape} do not fit the image {grid.shape}")
    moved = np.moveaxis(array, 0, -1)
    if moved.ndim == 3:  # a 2D image: classes go behind a depth of one
        moved = moved[:, :, None]
    source = source_of(like)
    return write_nifti(path, moved, affine_ras=grid.affine_ras, source=source, mark=PROBS_MARK)


def _on_grid(label: torch.Tensor, like: MetaTensor, path: Path) -> npt.NDArray[Any]:
    array = torch.as_tensor(label).detach().cpu().numpy()
    shape = grid_of(like).shape
    if array.shape == (1, *shape):
        array = array[0]
    if array.shape != shape:
        raise GeometryError(
            f"{path.name}: a label of shape {array.shape} does not fit the image {shape}"
        )
    return array


def _write(
    path: Path, array: npt.NDArray[Any], like: MetaTensor, labels: Sequence[LabelClass]
) -> Path:
    grid, source = grid_of(like), source_of(like)
    row = written_as(path)
    if row is None:
        raise UsageError(f"{path.name}: unknown format; known are {', '.join(WRITTEN_SUFFIXES)}")
    if row.name == "nifti":
        return write_nifti(path, array, affine_ras=grid.affine_ras, source=source, mark=LABEL_MARK)
    if row.kind == "raster":
        if array.ndim != 2:
            raise UsageError(f"{path.name}: a volume does not fit a PNG; use .nii.gz")
        return write_png(path, array)
    if array.ndim != 3:
        raise UsageError(f"{path.name}: 2D labels are written as .png or .nii.gz")
    if row.name == "nrrd":
        return write_nrrd(path, array, affine_ras=grid.affine_ras, labels=labels)
    return write_metaimage(path, array, affine_ras=grid.affine_ras)
