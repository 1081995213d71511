"""Images as callers give them to a predictor: a path, a MetaTensor, or an array with an affine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.errors import GeometryError, ImageError, UsageError
from segmed.io.channel_files import CaseFiles
from segmed.io.limits import DEFAULT_LIMITS, check_affine
from segmed.io.read import read_case
from segmed.metatensor import MetaTensor
from segmed.plan import Plan

GivenImage: TypeAlias = "MetaTensor | Tensor | npt.NDArray[Any] | Path | str | Sequence[Path | str]"
"""A path (or one a channel), a MetaTensor, or an array."""


def image_from(given: GivenImage, plan: Plan, affine: npt.ArrayLike | None) -> MetaTensor:
    """Read or check an image, and give it as `[C, *spatial]` with its affine.

    Args:
        given: A file or DICOM folder; several files, one a channel; a MetaTensor with its own
            affine; or an array or tensor. The channel axis of one channel may be left out.
        plan: The plan of the model.
        affine: Of an array: 4x4, from voxel indices to RAS+ mm.

    Raises:
        UsageError: Type, numbers or affine are not those of an image.
        ImageError: A file cannot be read correctly, or the image has other channels than the plan.
        GeometryError: It has other axes than the plan, or an affine that a file would be refused
            for: sheared, or of unbelievable voxel edges.
    """
    if isinstance(given, str | Path) or _is_paths(given):
        _require_no_affine(affine, "a file")
        files = (given,) if isinstance(given, str | Path) else tuple(given)
        paths = tuple(Path(str(path)) for path in files)
        return read_case(CaseFiles(paths[0].name, paths), num_channels=plan.in_channels)
    if isinstance(given, MetaTensor):
        _require_no_affine(affine, "a MetaTensor")
        affine, source = given.affine, given.meta.get("source")
        voxels = _with_channel_axis(given.as_tensor(), plan)
    elif isinstance(given, Tensor | np.ndarray):
        source = None
        voxels = _with_channel_axis(_tensor_of(given), plan)
    else:
        raise UsageError(
            f"an image is a path, a MetaTensor, or an array with affine=, got "
            f"{type(given).__name__}; of a nibabel image give get_fdata() and affine=image.affine"
        )
    if source is None:  # images that were read here are checked
        _require_numbers(voxels)
    checked = _checked_affine(affine, is_plane=voxels.ndim == 3)
    meta = {} if source is None else {"source": source}
    return MetaTensor(voxels, affine=torch.from_numpy(checked), meta=meta)


def _is_paths(given: object) -> bool:
    return (
        isinstance(given, Sequence)
        and len(given) > 0
        and all(isinstance(path, str | Path) for path in given)
    )


def _require_no_affine(affine: npt.ArrayLike | None, owner: str) -> None:
    if affine is not None:
        raise UsageError(f"affine= is for arrays: {owner} has an affine of its own; leave it out")


def _tensor_of(given: Tensor | npt.NDArray[Any]) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach().cpu()
    if given.dtype.kind not in "iuf":
        raise _wrong_numbers(given.dtype)
    return torch.from_numpy(np.ascontiguousarray(given, dtype=np.float32))


def _wrong_numbers(dtype: object) -> UsageError:
    return UsageError(
        f"an image contains integers or floating-point numbers, got {dtype}; convert it, such as "
        "by image.astype('float32')"
    )


def _with_channel_axis(voxels: Tensor, plan: Plan) -> Tensor:
    axes = len(plan.preprocessing.spacing_mm)
    channels = plan.in_channels
    if voxels.ndim == axes and channels == 1:
        voxels = voxels[None]
    wanted = f"[{channels}, *{axes} spatial axes]"
    if voxels.ndim != axes + 1:
        raise GeometryError(
            f"the model takes images of shape {wanted}, got {tuple(voxels.shape)}; of a batch give "
            "one image at a time",
            reason="dimensions",
        )
    if voxels.shape[0] != channels:
        names = ", ".join(channel.name for channel in plan.channels)
        hint = "; the channel axis comes first" if voxels.shape[-1] == channels else ""
        raise ImageError(
            f"the model takes {channels} channel{'s' * (channels != 1)} ({names}), got "
            f"{voxels.shape[0]} in an image of shape {tuple(voxels.shape)}{hint}",
            reason="channels",
        )
    if 0 in voxels.shape:
        raise UsageError(f"the image of shape {tuple(voxels.shape)} contains no voxel")
    return voxels


def _require_numbers(voxels: Tensor) -> None:
    if voxels.dtype is torch.bool or voxels.is_complex():
        raise _wrong_numbers(voxels.dtype)
    bad = int((~torch.isfinite(voxels)).sum())
    if bad:
        raise UsageError(
            f"{bad:,} voxels of the image are NaN or infinite; replace them, such as by "
            "numpy.nan_to_num"
        )


def _checked_affine(affine: npt.ArrayLike | None, *, is_plane: bool) -> npt.NDArray[np.float64]:
    if affine is None:
        if is_plane:  # raster images have none either: pixels of 1 mm, rows then columns
            return np.eye(4)
        raise UsageError(
            "an array needs affine=, the 4x4 matrix from voxel indices to RAS+ mm (of a nibabel "
            "image: image.affine)"
        )
    try:
        matrix = np.asarray(affine, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"affine must be a 4x4 matrix of numbers: {error}") from error
    if matrix.shape != (4, 4):
        raise UsageError(f"affine must be a 4x4 matrix, got shape {matrix.shape}")
    if not np.isfinite(matrix).all() or not np.array_equal(matrix[3], (0, 0, 0, 1)):
        raise UsageError(f"affine must be finite with the last row 0 0 0 1, got {matrix.tolist()}")
    if abs(np.linalg.det(matrix[:3, :3])) == 0.0:
        raise UsageError(
            f"affine maps several voxels to one place (its determinant is 0): {matrix.tolist()}"
        )
    check_affine(matrix, DEFAULT_LIMITS, Path("the array"))
    return matrix
