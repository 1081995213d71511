"""The files that an image consists of, found as its reader finds them, without reading a voxel."""

from __future__ import annotations

from pathlib import Path

from segmed.errors import ImageError
from segmed.io.arrays import is_half_pair
from segmed.io.dicom.read import only_series
from segmed.io.head import FileHead, is_nifti, sniff
from segmed.io.limits import DEFAULT_LIMITS
from segmed.io.metaimage import METAIMAGE
from segmed.io.nifti import nifti_files
from segmed.io.nrrd import NRRD
from segmed.io.stack import in_order, is_stack, stack_files
from segmed.io.text_header import volume_files


def files_of(file: Path | FileHead) -> tuple[Path, ...]:
    """The files that reading an image reads: what `Source.paths` lists afterwards.

    Args:
        file: A file, also as it was sniffed, or a folder with one DICOM series.

    Returns:
        The file; of an image in two files the header, then the voxels; of a folder the files of its
        one series, or its slices in order if it is a stack of rasters. A file that its reader would
        refuse counts alone; a folder without exactly one series gives nothing.
    """
    path = file.path if isinstance(file, FileHead) else file
    try:
        return _files_of(path, file)
    except (ImageError, OSError):
        return () if path.is_dir() else (path,)


def _files_of(path: Path, file: Path | FileHead) -> tuple[Path, ...]:
    if isinstance(file, Path) and is_stack(path):
        return tuple(in_order(stack_files(path)))
    if path.is_dir():
        return only_series(path).files
    head = sniff(file)
    head.require_sound()
    if is_nifti(head.start) or is_half_pair(path):
        return nifti_files(head)
    if head.format == "nrrd":
        return volume_files(path, NRRD, DEFAULT_LIMITS)
    if head.format == "metaimage":
        return volume_files(path, METAIMAGE, DEFAULT_LIMITS)
    return (path,)
