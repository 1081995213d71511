"""Volumes described by lines of text: NRRD and MetaImage, their voxels in the file or beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from segmed.geometry import Affine
from segmed.io.bytestream import refusal
from segmed.io.limits import ReadLimits
from segmed.io.source import Loaded, Source


def header_lines(stream: IO[bytes], path: Path, limits: ReadLimits) -> Iterator[str]:
    """The lines of a header, without their ends, until the caller stops.

    Raises:
        ImageError: `too_large`: they are beyond `limits.max_header_bytes`.
    """
    total = 0
    while line := stream.readline(limits.max_header_bytes):
        total += len(line)
        if total > limits.max_header_bytes:
            raise refusal(
                path, "too_large", f"its header is beyond {limits.max_header_bytes} bytes"
            )
        yield line.decode("latin-1").strip("\r\n")


def sibling(path: Path, name: str) -> Path:
    """A voxel file that a header names; it must be beside the header.

    Raises:
        ImageError: `outside_file` or `missing_file`.
    """
    is_several = "LIST" in name or re.search(r"%\d*d", name)
    if "/" in name or "\\" in name or "\0" in name or name in {"", ".", ".."} or is_several:
        raise refusal(
            path,
            "outside_file",
            f"voxels must be in the file or in one beside it, not {name[:60]!r}",
        )
    beside = path.with_name(name)
    if not beside.is_file() or beside.is_symlink():
        raise refusal(path, "missing_file", f"its voxel file {name[:60]!r} is not beside it")
    return beside


def described(raw: npt.NDArray[Any], affine_ras: Affine, source: Source, *, exact: bool) -> Loaded:
    """The image of stored voxels, as float32 or (`exact`) in their own type."""
    native = raw.dtype.newbyteorder("=") if exact else np.dtype(np.float32)
    with np.errstate(over="ignore"):
        array = np.asarray(raw, dtype=native)
    return Loaded(array[None], affine_ras, source)
