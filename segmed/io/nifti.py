"""Read NIfTI-1, NIfTI-2 and `.hdr`/`.img` pairs.

The header is checked before a voxel is read; a gzip stream is read to its end, so that its checksum
is verified. Rules, each with its reason code: `four_dimensional`, `vector`, `complex`,
`unsupported_pixels`, `one_dimensional`, `no_geometry` (sform and qform code both zero),
`ambiguous_geometry`, `shear`, `absurd_spacing`, `truncated`, `corrupt`, `trailing_data`.
The sform is used where its code is set, else the qform; where both claim one space they must agree
to half a voxel, unless the numbers of the qform are not a rotation. Metres and micrometres are
honoured.

Source:
    NIfTI-1.1 and NIfTI-2 standards, nifti1.h and nifti2.h (NIfTI Data Format Working Group).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from segmed.errors import GeometryError, ImageError
from segmed.geometry import Affine, Grid, grid_difference_mm, spacing_of
from segmed.io.bytestream import read_voxels, skip, truncated, unzipped
from segmed.io.head import NIFTI_MAGICS, FileHead, is_nifti, sniff
from segmed.io.limits import ReadLimits, check_affine, check_size
from segmed.io.source import Loaded, Source

HEADER_SIZES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
VOLUMES_NOTE = "a 4D file: its {} volumes are taken for the channels, in order"
UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres in one spatial unit, by the low three bits of `xyzt_units`; 0 is not stated."""


MAX_FORM_CODE = 5
"""Largest code of a sform or qform that the standard gives a meaning."""


def read_nifti(
    path: Path,
    limits: ReadLimits,
    *,
    exact: bool = False,
    num_channels: int = 1,
    head: FileHead | None = None,
) -> Loaded:
    """Read one NIfTI image.

    Args:
        path: A single file, zipped or not, or either file of a pair.
        limits: Bounds on its size and spacing.
        exact: Keep integers, or float64 where a scale is stored, instead of float32.
        num_channels: Volumes of a 4D file that are taken for channels; a file with another number
            of volumes is refused.
        head: What was sniffed of the file, if it was.

    Returns:
        The image, `[C, *spatial]` in storage order with its RAS+ affine in mm.

    Raises:
        ImageError: The file is refused; see the module for the reasons.
    """
    header_path, voxel_path = _pair(head or sniff(path))
    with unzipped(header_path) as stream:
        start = stream.read(540)
        header = parse_header(start, header_path)
        stored = stored_shape(header, header_path, num_channels)
        shape = stored[:3]
        check_size(stored, limits, path)
        affine = affine_of(header, len(shape), header_path)
        check_affine(affine, limits, path)
        _check_agreement(header, shape, header_path)
        dtype = _voxel_type(header, header_path)
        if voxel_path == header_path:
            offset = _offset(header, header_path, smallest=len(header.binaryblock) + 4)
            skip(stream, offset - len(start), path)
            raw = read_voxels(stream, stored, dtype, path, begun=start[offset:])
    if voxel_path != header_path:
        with unzipped(voxel_path) as stream:
            offset = _offset(header, header_path, smallest=0)
            skip(stream, offset, voxel_path)
            raw = read_voxels(stream, stored, dtype, voxel_path)
    array = _scaled(raw, header, header_path, exact=exact)
    paths = _once(header_path, voxel_path)
    notes = _notes(header, num_channels if len(stored) > 3 else 1)
    source = Source(format="nifti", paths=paths, header=header.binaryblock, notes=notes)
    return Loaded(array[None] if len(stored) <= 3 else np.moveaxis(array, 3, 0), affine, source)


def _notes(header: Any, num_volumes: int) -> tuple[str, ...]:
    """Odd, though not wrong, facts of a header."""
    notes = []
    if num_volumes > 1:
        notes.append(VOLUMES_NOTE.format(num_volumes))
    if int(header["qform_code"]) > 0 and qform_of(header) is None:
        notes.append("its qform is not a rotation of a grid: the sform is used alone")
    return tuple(notes)


def nifti_files(head: FileHead) -> tuple[Path, ...]:
    """The files that `read_nifti` reads: one, or the header and the voxels of a pair.

    Args:
        head: What was sniffed of either.

    Raises:
        ImageError: The other half of a pair is missing, or a zipped file is damaged.
    """
    return _once(*_pair(head))


def _once(header_path: Path, voxel_path: Path) -> tuple[Path, ...]:
    return (header_path,) if voxel_path == header_path else (header_path, voxel_path)


def _pair(head: FileHead) -> tuple[Path, Path]:
    """Header file and voxel file; the same twice unless the header is half of a pair."""
    head.require_sound()
    path, start = head.path, head.start
    suffix = ".gz" if path.suffix == ".gz" else ""
    stem = path.with_suffix("") if suffix else path
    if not is_nifti(start):
        header_path = stem.with_suffix(".hdr" + suffix)
        if stem.suffix == ".img" and header_path.exists():
            return header_path, path
        return path, path
    magic = start[344:348] if start[344:348] in NIFTI_MAGICS else start[4:8]
    if NIFTI_MAGICS[magic] == "single":
        return path, path
    voxel_path = stem.with_suffix(".img" + suffix)
    if not voxel_path.exists():
        raise ImageError(
            f"{path.name} is the header of a pair and {voxel_path.name} is missing; put it beside",
            reason="missing_file",
            paths=[path],
        )
    return path, voxel_path


def parse_header(start: bytes, path: Path) -> Any:
    """The header at the start of a file, as nibabel's class of its version and byte order.

    Raises:
        ImageError: `not_nifti` (also Analyze 7.5, which states no orientation) or `truncated`.
    """
    for order in "<>":
        size = struct.unpack(order + "i", start[:4])[0] if len(start) >= 4 else 0
        if size in HEADER_SIZES:
            break
    else:
        raise ImageError(
            f"{path.name}: not a NIfTI header (its size field is neither 348 nor 540)",
            reason="not_nifti",
            paths=[path],
        )
    if len(start) < size:
        raise truncated(path, f"the file ends inside its header ({len(start)} of {size} bytes)")
    magic = start[344:348] if size == 348 else start[4:8]
    if NIFTI_MAGICS.get(magic, "") and magic[2:3] != (b"1" if size == 348 else b"2"):
        raise ImageError(
            f"{path.name}: its header has {size} bytes and the magic {magic[:3].decode()!r} of the "
            "other version; restore it from its source",
            reason="not_nifti",
            paths=[path],
        )
    if not is_nifti(start):
        raise ImageError(
            f"{path.name}: an Analyze 7.5 header states no orientation; convert it to NIfTI",
            reason="not_nifti",
            paths=[path],
        )
    return HEADER_SIZES[size](start[:size], endianness=order, check=False)


def stored_shape(header: Any, path: Path, num_channels: int = 1) -> tuple[int, ...]:
    """The two or three spatial extents, and the number of volumes where these are the channels.

    Axes beyond them must have extent 1.

    Raises:
        ImageError: `corrupt`, `one_dimensional`, `vector` or `four_dimensional`.
    """
    dim = [int(n) for n in header["dim"]]
    axes = dim[0]
    if not 1 <= axes <= 7:
        raise ImageError(
            f"{path.name}: the header states {axes} axes, NIfTI has 1 to 7",
            reason="corrupt",
            paths=[path],
        )
    if axes == 1:
        raise ImageError(
            f"{path.name}: an image has two or three axes, this has one",
            reason="one_dimensional",
            paths=[path],
        )
    if axes >= 5 and dim[5] > 1:
        raise ImageError(
            f"{path.name}: {dim[5]} values a voxel (shape {tuple(dim[1 : axes + 1])}); "
            "split the components into files (a label map has one value a voxel: give each "
            "structure a value of its own)",
            reason="vector",
            paths=[path],
        )
    if axes >= 4 and dim[4] == num_channels > 1 and all(n <= 1 for n in dim[5 : axes + 1]):
        return tuple(dim[1:5])
    if any(n > 1 for n in dim[4 : axes + 1]):
        expected = f", {num_channels} channels are expected" if num_channels > 1 else ""
        raise ImageError(
            f"{path.name}: a series of volumes (shape {tuple(dim[1 : axes + 1])}){expected}; "
            "split it into one file a volume (of a label with a volume for each structure, make "
            "one map that gives each structure a value of its own)",
            reason="four_dimensional",
            paths=[path],
        )
    return tuple(dim[1 : min(axes, 3) + 1])


def affine_of(header: Any, num_axes: int, path: Path) -> Affine:
    """The affine to RAS+ mm that the header states: the sform if coded, else the qform.

    Raises:
        GeometryError: `no_geometry` or `bad_affine`.
    """
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code <= 0 and qform_code <= 0:
        raise GeometryError(
            f"{path.name}: neither sform nor qform is set, so left and right are unknown; "
            "set one of them in the source",
            reason="no_geometry",
            paths=[path],
        )
    used = ("sform", sform_code) if sform_code > 0 else ("qform", qform_code)
    if used[1] > MAX_FORM_CODE:
        raise GeometryError(
            f"{path.name}: the {used[0]} has the code {used[1]}, known are 0 to {MAX_FORM_CODE}; "
            "rewrite its header",
            reason="bad_affine",
            paths=[path],
        )
    scale = UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused later
        sform = np.asarray(header.get_sform(), dtype=np.float64)
    affine = (sform if sform_code > 0 else _require_qform(header, path)).copy()
    affine[:3] *= scale
    if num_axes == 2 and not np.any(affine[:3, 2]):
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] /= np.linalg.norm(affine[:3, 2]) or 1.0
    return affine


def qform_of(header: Any) -> Affine | None:
    """The qform, whether coded or not; None where its numbers are not a rotation of a grid."""
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            qform = np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError):
        return None
    return qform if np.isfinite(qform).all() and min(spacing_of(qform)) > 0 else None


def _require_qform(header: Any, path: Path) -> Affine:
    qform = qform_of(header)
    if qform is None:
        raise GeometryError(
            f"{path.name}: the qform is not a rotation of a grid, and no sform is set; rewrite its "
            "header",
            reason="bad_affine",
            paths=[path],
        )
    return qform


def _check_agreement(header: Any, shape: tuple[int, ...], path: Path) -> None:
    """Two forms that claim one space must put every corner within half a voxel of one place.

    Raises:
        GeometryError: `ambiguous_geometry`.
    """
    if not 0 < int(header["sform_code"]) == int(header["qform_code"]):
        return
    qform = qform_of(header)
    if qform is None:
        return  # the sform is the only one
    first = Grid(shape, np.asarray(header.get_sform(), dtype=np.float64))
    second = Grid(shape, qform)
    apart = grid_difference_mm(first, second)
    if not apart <= 0.5 * min(first.spacing_mm + second.spacing_mm):
        raise GeometryError(
            f"{path.name}: sform and qform claim the same space and are up to {apart:.3g} mm "
            "apart; correct one of them",
            reason="ambiguous_geometry",
            paths=[path],
        )


def _voxel_type(header: Any, path: Path) -> np.dtype[Any]:
    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (KeyError, HeaderDataError) as error:
        raise ImageError(
            f"{path.name}: unknown voxel type {code}", reason="unsupported_pixels", paths=[path]
        ) from error
    if dtype.kind == "c":
        raise ImageError(
            f"{path.name}: complex voxels; write magnitude or phase as a file of its own",
            reason="complex",
            paths=[path],
        )
    if dtype.fields is not None:
        raise ImageError(
            f"{path.name}: coloured voxels ({dtype.itemsize} bytes each); "
            "split the colours into files",
            reason="vector",
            paths=[path],
        )
    if dtype.kind not in "iuf" or dtype.itemsize > 8 or dtype.itemsize * 8 != int(header["bitpix"]):
        raise ImageError(
            f"{path.name}: voxel type {code} with {int(header['bitpix'])} bits is not readable",
            reason="unsupported_pixels",
            paths=[path],
        )
    return dtype


def _offset(header: Any, path: Path, *, smallest: int) -> int:
    offset = float(header["vox_offset"])
    if offset == 0 and smallest:
        offset = float(smallest)
    if not (smallest <= offset < 1 << 31) or offset != int(offset):
        raise ImageError(
            f"{path.name}: voxels cannot start at byte {offset}", reason="corrupt", paths=[path]
        )
    return int(offset)


def _scaled(raw: npt.NDArray[Any], header: Any, path: Path, *, exact: bool) -> npt.NDArray[Any]:
    """Apply `scl_slope` and `scl_inter`; a slope of 0 or NaN means none."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    native = raw.dtype.newbyteorder("=")
    if slope == 0 or np.isnan(slope) or (slope == 1 and inter == 0):
        with np.errstate(over="ignore"):
            return np.asarray(raw, dtype=native if exact else np.float32)
    if not (np.isfinite(slope) and np.isfinite(inter)):
        raise ImageError(
            f"{path.name}: the scale {slope} x + {inter} is not finite",
            reason="bad_scaling",
            paths=[path],
        )
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(np.float64) * slope + inter
        return values if exact else values.astype(np.float32)
