"""Read and write MetaImage (`.mha`, `.mhd` with its voxels beside), raw or zlib.

Our own reader: its header is checked before a voxel is read, and no file can crash it. Beyond the
reasons of `bytestream` and `limits`: `unsupported_pixels`, `unsupported_encoding`, `no_geometry`,
`vector`, `four_dimensional`, `missing_file`, `outside_file`, `corrupt`.

Source:
    MetaIO documentation, itk.org/Wiki/ITK/MetaIO/Documentation; space is LPS, in mm.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from segmed.errors import GeometryError
from segmed.geometry import Affine, spacing_of
from segmed.io.atomic import whole_file
from segmed.io.bytestream import (
    Inflated,
    Readable,
    read_voxels,
    refusal,
    stream_errors,
    truncated,
)
from segmed.io.limits import ReadLimits
from segmed.io.source import Loaded
from segmed.io.text_header import TextFormat, header_lines, read_volume

TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
BYTE_ORDERS = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
NAMES = {code: name for name, code in TYPES.items()}


def read_metaimage(path: Path, limits: ReadLimits, *, exact: bool = False) -> Loaded:
    """Read one MetaImage, `.mha` or `.mhd`: `read_volume` of this format."""
    return read_volume(path, METAIMAGE, limits, exact=exact)


def _fields(stream: IO[bytes], path: Path, limits: ReadLimits) -> dict[str, str]:
    """The header up to `ElementDataFile`, which ends it."""
    fields: dict[str, str] = {}
    for line in header_lines(stream, path, limits):
        name, equals, value = line.partition("=")
        if equals:
            fields[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            return fields
    raise truncated(path, "the file ends inside its header")


def _data_file(fields: dict[str, str]) -> str | None:
    name = fields["ElementDataFile"]
    return None if name == "LOCAL" else name


def _floats(fields: dict[str, str], names: tuple[str, ...], count: int, path: Path) -> list[float]:
    """The numbers of the first of several names that is there; empty where none is."""
    text = next((fields[name] for name in names if name in fields), None)
    if text is None:
        return []
    try:
        values = [float(part) for part in text.split()]
    except ValueError as error:
        raise refusal(path, "corrupt", f"{names[0]} is {text[:60]!r}, not numbers") from error
    if len(values) != count:
        raise refusal(path, "corrupt", f"{names[0]} has {len(values)} numbers, not {count}")
    return values


def _grid(fields: dict[str, str], path: Path) -> tuple[tuple[int, ...], Affine]:
    try:
        axes = int(fields.get("NDims", ""))
        shape = tuple(int(part) for part in fields.get("DimSize", "").split())
    except ValueError as error:
        raise refusal(path, "corrupt", "NDims or DimSize are not whole numbers") from error
    if len(shape) != axes or fields.get("ObjectType", "Image") != "Image":
        raise refusal(path, "corrupt", "NDims and DimSize contradict each other")
    if axes > 3:
        raise refusal(path, "four_dimensional", f"shape {shape}; split it into volumes")
    if axes < 2:
        raise refusal(path, "one_dimensional", "an image has two or three axes, this has one")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise refusal(path, "vector", "several values a voxel; split them into files")
    return shape, _affine(fields, len(shape), path)


def _affine(fields: dict[str, str], axes: int, path: Path) -> Affine:
    matrix = _floats(fields, ("TransformMatrix", "Rotation", "Orientation"), axes * axes, path)
    origin = _floats(fields, ("Offset", "Position", "Origin"), axes, path)
    spacing = _floats(fields, ("ElementSpacing", "ElementSize"), axes, path)
    if axes != 3 or not matrix or not origin or not spacing:
        raise GeometryError(
            f"{path.name}: TransformMatrix, Offset or ElementSpacing are not stated for three axes,"
            " so its place is unknown; set them in the source",
            reason="no_geometry",
            paths=[path],
        )
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(matrix).reshape(3, 3).T * np.asarray(spacing)
    affine[:3, 3] = origin
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, dtype=np.float64)


def _voxel_type(fields: dict[str, str], path: Path) -> np.dtype[Any]:
    code = TYPES.get(fields.get("ElementType", ""))
    if code is None:
        name = fields.get("ElementType", "")[:40]
        raise refusal(path, "unsupported_pixels", f"unknown voxel type {name!r}")
    orders = [_flag(fields, name, path) for name in BYTE_ORDERS if name in fields]
    if len(set(orders)) > 1:
        raise refusal(path, "corrupt", f"{' and '.join(BYTE_ORDERS)} contradict each other")
    big = any(orders)
    return np.dtype((">" if big else "<") + code)


def _body(
    stream: IO[bytes],
    fields: dict[str, str],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    path: Path,
) -> npt.NDArray[Any]:
    if not _flag(fields, "BinaryData", path) or fields.get("HeaderSize", "0") != "0":
        raise refusal(path, "unsupported_encoding", "voxels as text or behind a foreign header")
    zipped = _flag(fields, "CompressedData", path)
    if zipped and (stated := fields.get("CompressedDataSize")) is not None:
        _check_packed_size(stream, stated, path)
    with stream_errors(path):
        body: Readable = Inflated(stream) if zipped else stream
        return read_voxels(body, shape, dtype, path)


def _flag(fields: dict[str, str], name: str, path: Path) -> bool:
    """A field that is `True` or `False`; missing is `False`."""
    text = fields.get(name, "False").lower()
    if text not in {"true", "false", "1", "0"}:
        raise refusal(path, "corrupt", f"{name} is {text[:40]!r}, neither True nor False")
    return text in {"true", "1"}


def _check_packed_size(stream: IO[bytes], stated: str, path: Path) -> None:
    """Refuse a stated size of the packed voxels that the rest of the file contradicts.

    Raises:
        ImageError: `corrupt` or `truncated`.
    """
    left = os.fstat(stream.fileno()).st_size - stream.tell()
    if not stated.isdecimal() or int(stated) < left:
        raise refusal(
            path, "corrupt", f"CompressedDataSize is {stated[:40]!r}, {left} bytes follow"
        )
    if int(stated) > left:
        raise truncated(path, f"the file ends after {left} of {stated[:40]} packed bytes")


METAIMAGE = TextFormat("metaimage", _fields, _grid, _voxel_type, _data_file, _body)


def write_metaimage(path: Path, array: npt.NDArray[Any], *, affine_ras: Affine) -> Path:
    """Write a volume as one zlib MetaImage.

    Args:
        path: `.mha`.
        array: `[i, j, k]`.
        affine_ras: 4x4, voxel indices to RAS+ mm.

    Returns:
        `path`.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_ras
    edges = np.asarray(spacing_of(lps))
    body = zlib.compress(array.astype(array.dtype.newbyteorder("<")).tobytes(order="F"), 4)

    def words(values: npt.NDArray[np.float64]) -> str:
        return " ".join(repr(float(value)) for value in values)

    header = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(body)}",
        f"TransformMatrix = {words((lps[:3, :3] / edges).T.ravel())}",
        f"Offset = {words(lps[:3, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {words(edges)}",
        f"DimSize = {' '.join(map(str, array.shape))}",
        f"ElementType = {NAMES[array.dtype.newbyteorder('=').str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    with whole_file(path) as partial:
        partial.write_bytes(("\n".join(header) + "\n").encode("ascii") + body)
    return path
