"""The files that an image consists of, found as its reader finds them, without reading a voxel."""

from __future__ import annotations

from pathlib import Path

from segmed.errors import ImageError
from segmed.io.arrays import is_half_pair, start_of
from segmed.io.dicom.header import looks_like_dicom
from segmed.io.dicom.read import only_series
from segmed.io.limits import DEFAULT_LIMITS
from segmed.io.metaimage import is_metaimage, metaimage_files
from segmed.io.nifti import is_nifti, nifti_files
from segmed.io.nrrd import MAGIC, nrrd_files
from segmed.io.stack import in_order, is_stack, stack_files


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that reading an image reads: what `Source.paths` lists afterwards.

    Args:
        path: A file, or a folder with one DICOM series.

    Returns:
        The file; of an image in two files the header, then the voxels; of a folder the files of its
        one series, or its slices in order if it is a stack of rasters. A file that its reader would
        refuse stands alone; a folder without exactly one series gives nothing.
    """
    try:
        return _files_of(path)
    except (ImageError, OSError):
        return () if path.is_dir() else (path,)


def _files_of(path: Path) -> tuple[Path, ...]:
    if is_stack(path):
        return tuple(in_order(stack_files(path)))
    if path.is_dir():
        return only_series(path).files
    start = start_of(path)
    if is_nifti(start) or is_half_pair(path):
        return nifti_files(path)
    if looks_like_dicom(start[:132]):
        return (path,)
    if start.startswith(MAGIC):
        return nrrd_files(path, DEFAULT_LIMITS)
    if is_metaimage(start):
        return metaimage_files(path, DEFAULT_LIMITS)
    return (path,)
