"""Read and write NRRD, attached or beside its header, raw or gzip.

Our own reader: its header is checked before a voxel is read, and no file can crash it. Beyond the
reasons of `bytestream` and `limits`: `not_nrrd`, `unsupported_encoding`, `unsupported_pixels`,
`no_geometry`, `vector`, `four_dimensional`, `unit`, `missing_file`, `outside_file`.

Source:
    Definition of NRRD file format, teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segmed.errors import GeometryError
from segmed.geometry import Affine
from segmed.io.atomic import whole_file
from segmed.io.bytestream import Readable, read_voxels, refusal, stream_errors, truncated
from segmed.io.limits import ReadLimits, check_affine, check_size
from segmed.io.segment_fields import segment_fields
from segmed.io.source import Loaded
from segmed.io.text_header import TextFormat, header_lines, read_volume

if TYPE_CHECKING:
    from segmed.structures import LabelClass

TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
TO_RAS = {
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
}  # fmt: skip
NAMES = {"u1": "uint8", "u2": "uint16", "f4": "float", "i4": "int32"}


def read_nrrd(path: Path, limits: ReadLimits, *, exact: bool = False) -> Loaded:
    """Read one NRRD image: `read_volume` of this format."""
    return read_volume(path, NRRD, limits, exact=exact)


def read_layers(path: Path, limits: ReadLimits) -> tuple[npt.NDArray[Any], Affine, dict[str, str]]:
    """Read the label maps of a segmentation, and the key/value pairs of its header.

    Args:
        path: The file, with its voxels inside.
        limits: Bounds on its size and spacing.

    Returns:
        `[layer, i, j, k]` in its own type, the affine to RAS+ mm, and the pairs.

    Raises:
        ImageError: The file is refused; see the module for the reasons.
    """
    pairs: dict[str, str] = {}
    with path.open("rb") as stream:
        if stream.read(4) != b"NRRD":
            raise refusal(path, "not_nrrd", "it does not begin with NRRD; choose a .seg.nrrd file")
        stream.seek(0)
        fields = _fields(stream, path, limits, pairs)
        if _data_file(fields) is not None:
            raise refusal(path, "outside_file", "its voxels are in another file; save it as one")
        number = 1
        if (
            fields.get("kinds", "").lower().split()[:1] == ["list"]
            and fields.get("dimension") == "4"
        ):
            number, fields = _without_list(fields, path)
        shape, affine = _grid(fields, path)
        check_size((number, *shape), limits, path)
        check_affine(affine, limits, path)
        layers = _body(stream, fields, (number, *shape), _voxel_type(fields, path), path)
    return layers, affine, pairs


def _without_list(fields: dict[str, str], path: Path) -> tuple[int, dict[str, str]]:
    """Length of the leading list axis, and the header of one of its volumes."""
    number, *shape = _numbers(fields, "sizes", path)
    rest = {
        "dimension": str(len(shape)),
        "sizes": " ".join(map(str, shape)),
        "kinds": " ".join(fields["kinds"].split()[1:]),
        "space directions": fields.get("space directions", "").removeprefix("none").strip(),
    }
    return number, {**fields, **rest}


def _fields(
    stream: IO[bytes], path: Path, limits: ReadLimits, pairs: dict[str, str] | None = None
) -> dict[str, str]:
    """The header up to its empty line, which is consumed; key/value pairs are added to `pairs`."""
    fields: dict[str, str] = {}
    for text in header_lines(stream, path, limits):
        if not text:
            return fields
        key, is_pair, stored = text.partition(":=")
        if is_pair and pairs is not None and ": " not in key and not key.startswith("#"):
            pairs.setdefault(key, stored.encode("latin-1").decode("utf-8", "replace"))
        name, colon, value = text.partition(": ")
        if colon and not text.startswith("#") and ":=" not in name:
            fields.setdefault(name.strip().lower(), value.strip())
    if "data file" in fields or "datafile" in fields:
        return fields
    raise truncated(path, "the file ends inside its header")


def _data_file(fields: dict[str, str]) -> str | None:
    return fields.get("data file", fields.get("datafile"))


def _numbers(fields: dict[str, str], name: str, path: Path) -> list[int]:
    try:
        return [int(part) for part in fields[name].split()]
    except (KeyError, ValueError) as error:
        raise refusal(path, "corrupt", f"the header has no whole numbers for {name!r}") from error


def _grid(fields: dict[str, str], path: Path) -> tuple[tuple[int, ...], Affine]:
    shape = tuple(_numbers(fields, "sizes", path))
    if _numbers(fields, "dimension", path) != [len(shape)]:
        raise refusal(path, "corrupt", "its dimension and its sizes contradict each other")
    kinds = fields.get("kinds", "").lower().split()
    if "kinds" in fields and len(kinds) != len(shape):
        raise refusal(path, "corrupt", f"{len(kinds)} kinds for {len(shape)} axes")
    inner = [kind for kind in kinds if kind not in {"domain", "space", "???", "none"}]
    directions = _vectors(fields.get("space directions", ""))
    if len(shape) > 3 or inner or None in directions[: len(shape)]:
        reason = "four_dimensional" if "time" in inner or "list" in inner else "vector"
        raise refusal(path, reason, f"shape {shape} with kinds {inner}; split it into volumes")
    if len(shape) < 2:
        raise refusal(path, "one_dimensional", "an image has two or three axes, this has one")
    return shape, _affine(fields, [v for v in directions if v is not None], len(shape), path)


def _affine(
    fields: dict[str, str], directions: Sequence[list[float]], axes: int, path: Path
) -> Affine:
    signs = TO_RAS.get(fields.get("space", "").lower())
    origin = _vectors(fields.get("space origin", ""))
    complete = len(directions) == axes and all(len(vector) == 3 for vector in directions)
    if signs is None or not complete or len(origin) != 1 or len(origin[0] or ()) != 3:
        raise GeometryError(
            f"{path.name}: space, directions or origin are not stated, so its place is unknown; "
            "set them in the source",
            reason="no_geometry",
            paths=[path],
        )
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    if units - {"mm", ""}:
        raise refusal(path, "unit", f"its space is in {sorted(units)}, not in mm")
    affine = np.eye(4)
    affine[:3, :axes] = np.asarray(directions).T
    affine[:3, 3] = np.asarray(origin[0])
    if axes == 2:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
    return np.asarray(np.diag([*signs, 1]) @ affine, dtype=np.float64)


def _vectors(text: str) -> list[list[float] | None]:
    """Parenthesised vectors; None for each `none`."""
    found: list[list[float] | None] = []
    if not re.fullmatch(r"\s*((\([^()]*\)|none)(\s+|$))*", text):
        return [[]]  # more than vectors: none of them can be relied on
    for part in re.findall(r"\([^()]*\)|none", text):
        try:
            found.append(
                None if part == "none" else [float(value) for value in part[1:-1].split(",")]
            )
        except ValueError:
            found.append([])
    return found


def _voxel_type(fields: dict[str, str], path: Path) -> np.dtype[Any]:
    name = fields.get("type", "").lower()
    code = next((code for code, names in TYPES.items() if name in names), None)
    if code is None:
        raise refusal(path, "unsupported_pixels", f"unknown voxel type {name[:40]!r}")
    endian = fields.get("endian", "").lower()
    if endian not in {"little", "big"} and (code[1] != "1" or "endian" in fields):
        raise refusal(path, "corrupt", "its byte order is not stated")
    return np.dtype((">" if endian == "big" else "<") + code)


def _body(
    stream: IO[bytes],
    fields: dict[str, str],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    path: Path,
) -> npt.NDArray[Any]:
    encoding = fields.get("encoding", "").lower()
    skips = {fields.get(name, "0") for name in ("byte skip", "byteskip", "line skip", "lineskip")}
    if encoding not in {"raw", "gzip", "gz"} or skips != {"0"}:
        raise refusal(
            path, "unsupported_encoding", f"encoding {encoding[:40]!r}; known are raw and gzip"
        )
    with stream_errors(path):
        body: Readable = stream if encoding == "raw" else gzip.GzipFile(fileobj=stream, mode="rb")
        return read_voxels(body, shape, dtype, path)


NRRD = TextFormat("nrrd", _fields, _grid, _voxel_type, _data_file, _body)


def write_nrrd(
    path: Path,
    array: npt.NDArray[Any],
    *,
    affine_ras: Affine,
    labels: Sequence[LabelClass] = (),
) -> Path:
    """Write a volume as one gzip NRRD in LPS, its labels as segments that 3D Slicer reads.

    Args:
        path: `.nrrd`.
        array: `[i, j, k]`, uint8, uint16, int32 or float32.
        affine_ras: 4x4, voxel indices to RAS+ mm.
        labels: Structures of a label map, for names, colours and codes.

    Returns:
        `path`.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_ras

    def vector(values: npt.NDArray[np.float64]) -> str:
        return "(" + ",".join(repr(float(value)) for value in values) + ")"

    lines = [
        "NRRD0004",
        f"type: {NAMES[array.dtype.newbyteorder('=').str[1:]]}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {' '.join(vector(lps[:3, axis]) for axis in range(array.ndim))}",
        f"kinds: {' '.join(['domain'] * array.ndim)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vector(lps[:3, 3])}",
    ]
    lines += segment_fields(array, labels)
    with whole_file(path) as partial, partial.open("wb") as raw:
        raw.write(("\n".join(lines) + "\n\n").encode())
        with gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0) as zipped:
            zipped.write(array.astype(array.dtype.newbyteorder("<")).tobytes(order="F"))
    return path
