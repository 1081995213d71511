"""Volumes described by lines of text: NRRD and MetaImage, their voxels in the file or beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from segmed.geometry import Affine
from segmed.io.bytestream import refusal
from segmed.io.limits import ReadLimits, check_affine, check_size
from segmed.io.source import Loaded, Source

Fields = dict[str, str]
"""Fields of a header by name."""


@dataclass(frozen=True)
class TextFormat:
    """A format whose header is text. Its functions take the path for messages.

    Attributes:
        name: Its name in the table of formats.
        fields: Read the header.
        grid: Shape, fastest axis first, and affine to RAS+ mm.
        voxel_type: Type of the voxels, with their byte order.
        data_file: Name of the file with the voxels; None if they follow the header.
        body: Read the voxels.
    """

    name: str
    fields: Callable[[IO[bytes], Path, ReadLimits], Fields]
    grid: Callable[[Fields, Path], tuple[tuple[int, ...], Affine]]
    voxel_type: Callable[[Fields, Path], np.dtype[Any]]
    data_file: Callable[[Fields], str | None]
    body: Callable[
        [IO[bytes], Fields, tuple[int, ...], np.dtype[Any], Path], npt.NDArray[np.generic]
    ]

    def files(self, fields: Fields, path: Path) -> tuple[Path, ...]:
        """The file, or a header and the voxels beside it."""
        name = self.data_file(fields)
        return (path,) if name is None else (path, sibling(path, name))


def read_volume(path: Path, form: TextFormat, limits: ReadLimits, *, exact: bool = False) -> Loaded:
    """Read one volume; its header is checked before a voxel is read.

    Args:
        path: The file, or the header of a detached one.
        form: Its format.
        limits: Bounds on its size and spacing.
        exact: Keep the stored type instead of float32.

    Returns:
        `[1, *spatial]`, fastest axis first.

    Raises:
        ImageError: The file is refused; see the module of its format for the reasons.
    """
    with path.open("rb") as stream:
        fields = form.fields(stream, path, limits)
        shape, affine = form.grid(fields, path)
        check_size(shape, limits, path)
        check_affine(affine, limits, path)
        dtype = form.voxel_type(fields, path)
        paths = form.files(fields, path)
        if len(paths) == 1:
            raw = form.body(stream, fields, shape, dtype, path)
    if len(paths) > 1:
        with paths[1].open("rb") as stream:
            raw = form.body(stream, fields, shape, dtype, paths[1])
    with np.errstate(over="ignore"):
        array = np.asarray(raw, dtype=raw.dtype.newbyteorder("=") if exact else np.float32)
    return Loaded(array[None], affine, Source(format=form.name, paths=paths))


def volume_files(path: Path, form: TextFormat, limits: ReadLimits) -> tuple[Path, ...]:
    """The files that `read_volume` reads.

    Raises:
        ImageError: The header is damaged, or its voxel file is missing or elsewhere.
    """
    with path.open("rb") as stream:
        return form.files(form.fields(stream, path, limits), path)


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
