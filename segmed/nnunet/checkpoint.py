"""Weights of an nnU-Net checkpoint, without running the code that a pickle may contain."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmed.errors import PackageError

SAFE = (
    np.dtype,
    np.ndarray,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]  # NumPy's own, not in its stubs
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]  # the same
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("Float32", "Float64", "Int32", "Int64")),
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("Bool", "UInt8")),
)
"""Types of a checkpoint besides tensors and plain values: NumPy numbers and arrays."""

OLD_NAMES = {
    "numpy.core.multiarray.scalar": np._core.multiarray.scalar,  # type: ignore[attr-defined]  # as above
    "numpy.core.multiarray._reconstruct": np._core.multiarray._reconstruct,  # type: ignore[attr-defined]  # as above
}
"""The same under the names of NumPy 1."""


@dataclass(frozen=True)
class FoldWeights:
    """Weights and facts of one `checkpoint_final.pth`.

    Attributes:
        state: Tensors by name, each once.
        trainer: Class that trained it.
        configuration: Configuration that it was trained in.
        mirror_axes: Axes of the window along which its images may be mirrored.
        epoch: Epochs done.
    """

    state: dict[str, Tensor]
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    epoch: int | None


def read_checkpoint(path: Path) -> FoldWeights:
    """Read a checkpoint; nothing in it is executed.

    Args:
        path: `checkpoint_final.pth` or `checkpoint_best.pth`.

    Raises:
        PackageError: It is damaged, is none of nnU-Net's, or needs code of others to be read.
    """
    content = _loaded(path)
    try:
        weights = content["network_weights"]
        axes = content.get("inference_allowed_mirroring_axes") or ()
        return FoldWeights(
            state=unique_tensors(weights, path),
            trainer=str(content["trainer_name"]),
            configuration=str(content["init_args"]["configuration"]),
            mirror_axes=tuple(int(axis) for axis in axes),
            epoch=None if content.get("current_epoch") is None else int(content["current_epoch"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackageError(
            f"{path.name} is not a checkpoint of nnU-Net v2: {type(error).__name__} {error}"
        ) from error


def _loaded(path: Path) -> Mapping[str, Any]:
    if not zipfile.is_zipfile(path):
        raise PackageError(f"{path.name} is damaged, or was not written by torch.save")
    allowed = [*SAFE, *((what, name) for name, what in OLD_NAMES.items())]
    try:
        with torch.serialization.safe_globals(allowed):
            found = torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=True,  # the optimiser's state is never read from the disk
            )
    except pickle.UnpicklingError as error:
        culprit = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it refers to {culprit[1]}" if culprit else " ".join(str(error).split())[:200]
        raise PackageError(
            f"{path.name} is not opened, because reading it could run code: {reason}; ask its "
            "maker for a checkpoint with tensors and plain values only"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise PackageError(
            f"{path.name} is damaged: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(found, Mapping):
        raise PackageError(
            f"{path.name} contains a {type(found).__name__}, no checkpoint of nnU-Net"
        )
    return found


def unique_tensors(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Each tensor under one name.

    nnU-Net's modules register every layer twice and its decoder the encoder once more, so a
    tensor is stored under up to four names.

    Raises:
        PackageError: Two names of one tensor have different values.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        plain = name.removeprefix("module.").removeprefix("_orig_mod.")
        plain = plain.removeprefix("decoder.") if plain.startswith("decoder.encoder.") else plain
        if ".all_modules." not in plain:
            if plain in found and not torch.equal(found[plain], tensor):
                raise PackageError(f"{path.name} stores two different tensors as {plain}")
            found[plain] = tensor
    found = {name: tensor.clone() for name, tensor in found.items()}  # off the mapped file
    if not found:
        raise PackageError(f"{path.name} contains no weights")
    return found
