"""Write NIfTI with the exact header geometry of the image that a result belongs to."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy.typing as npt

from segmed.geometry import Affine
from segmed.io.atomic import whole_file
from segmed.io.nifti import parse_header, qform_of
from segmed.io.results import ResultMark
from segmed.io.source import Source

GZIP_LEVEL = 4
MAX_NIFTI1_EDGE = 32767

KEPT = (
    "dim_info", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c",
    "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""Header fields that a result takes over from its image: geometry, and no text."""


def write_nifti(
    path: Path,
    array: npt.NDArray[Any],
    *,
    affine_ras: Affine,
    source: Source | None,
    mark: ResultMark | None = None,
) -> Path:
    """Write an array as NIfTI; whole or not at all.

    Where `source` is a NIfTI file, its shape, sform, qform, codes and units are kept byte for byte;
    else both forms are set from the affine, in mm. Equal input gives equal bytes. Nothing else of
    the image's header is taken over, since its free text (`descrip`, `aux_file`, `db_name`,
    `intent_name`, extensions) may name a patient.

    Args:
        path: `.nii` or `.nii.gz`.
        array: `[*spatial]`, or `[*spatial, C]` for several values a voxel, in storage order.
        affine_ras: 4x4, voxel indices to RAS+ mm.
        source: Where the image came from.
        mark: Kind of result, by which the file is known as one later; see `segmed.io.results`.

    Returns:
        `path`.
    """
    header = _header_like(array, affine_ras, source)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 0
    if mark is not None:
        header["descrip"] = mark
    header["vox_offset"] = len(header.binaryblock) + 4
    header["magic"] = b"n+2" if isinstance(header, nib.Nifti2Header) else b"n+1"
    voxels = array.astype(array.dtype.newbyteorder("<")).tobytes(order="F")
    content = (header.binaryblock, bytes(4), voxels)
    with whole_file(path) as partial, partial.open("wb") as raw:
        if path.suffix != ".gz":
            raw.writelines(content)
        else:
            with gzip.GzipFile("", "wb", compresslevel=GZIP_LEVEL, fileobj=raw, mtime=0) as zipped:
                zipped.writelines(content)
    return path


def _header_like(array: npt.NDArray[Any], affine_ras: Affine, source: Source | None) -> Any:
    """A little-endian header with the geometry of the source, its text fields empty."""
    if source is not None and source.header:
        theirs = parse_header(source.header, path=source.paths[0])
        header = type(theirs)(endianness="<")
        for name in KEPT:
            header[name] = theirs[name]
        if int(theirs["qform_code"]) > 0 and qform_of(theirs) is None:
            header["qform_code"] = 0  # readers would stumble over it; the sform places the image
            header["quatern_b"] = header["quatern_c"] = header["quatern_d"] = 0
        return header
    wide = max(array.shape) > MAX_NIFTI1_EDGE
    header = (nib.Nifti2Header if wide else nib.Nifti1Header)(endianness="<")
    header.set_data_shape(array.shape)
    header.set_sform(affine_ras, code=1)
    header.set_qform(affine_ras, code=1)
    header.set_xyzt_units("mm")
    return header
