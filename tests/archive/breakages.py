"""Ten ways in which a study can be broken, each made from a sound one."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom

NiftiBreak = Callable[[Path], None]


def truncate_volume(path: Path) -> None:
    """The download ended early."""
    path.write_bytes(path.read_bytes()[:-60])


def flip_a_bit(path: Path) -> None:
    """The gzip stream no longer fits its checksum."""
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)


def empty(path: Path) -> None:
    """No bytes at all."""
    path.write_bytes(b"")


def put_nan(path: Path) -> None:
    """One voxel is no number."""
    image = nib.load(path)
    voxels = np.asarray(image.dataobj, dtype=np.float32).copy()
    voxels[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), path)


def add_time(path: Path) -> None:
    """A second time point."""
    image = nib.load(path)
    voxels = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.stack([voxels, voxels + 1], -1), image.affine), path)


def forget_geometry(path: Path) -> None:
    """Both form codes are zero."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[252:256] = bytes(4)
    path.write_bytes(gzip.compress(bytes(content), mtime=0))


def drop_slice(files: list[Path]) -> None:
    """A slice of the middle is missing."""
    files[len(files) // 2].unlink()


def repeat_slice(files: list[Path]) -> None:
    """One slice stands twice at one place, with other pixels."""
    dataset = pydicom.dcmread(files[2])
    dataset.SOPInstanceUID += ".1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    pixels = bytearray(dataset.PixelData)
    pixels[10] ^= 1
    dataset.PixelData = bytes(pixels)
    dataset.save_as(files[2].with_name("again.dcm"))


def truncate_slice(files: list[Path]) -> None:
    """One file ends within its pixels."""
    files[3].write_bytes(files[3].read_bytes()[:-50])


def turn_slice(files: list[Path]) -> None:
    """One slice has another orientation."""
    dataset = pydicom.dcmread(files[1])
    dataset.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
    dataset.save_as(files[1])


NIFTI = {
    truncate_volume: "truncated",
    flip_a_bit: "corrupt",
    empty: "empty_file",
    put_nan: "non_finite",
    add_time: "four_dimensional",
    forget_geometry: "no_geometry",
}
DICOM = {
    drop_slice: "missing_slice",
    repeat_slice: "duplicate_slice",
    truncate_slice: "truncated",
    turn_slice: "mixed_orientation",
}
