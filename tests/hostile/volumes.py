"""Hostile NIfTI, NRRD and MetaImage files."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from table import Hostile, Make, written

SIDE = 6
MEBI = 1 << 20


def nifti(*patches: tuple[int, str, object], voxels: bytes | None = None) -> bytes:
    """A sound NIfTI-1 file of float32 with places of its header overwritten.

    Args:
        patches: Offset, format of `struct`, value or values.
        voxels: What follows the header instead of the voxels.
    """
    array = np.arange(SIDE**3, dtype=np.float32).reshape(SIDE, SIDE, SIDE)
    image = nib.Nifti1Image(array, np.eye(4))
    image.set_qform(None, code=0)
    data = bytearray(image.to_bytes())
    if voxels is not None:
        data[352:] = voxels
    for offset, form, value in patches:
        values = value if isinstance(value, tuple) else (value,)
        struct.pack_into("<" + form, data, offset, *values)
    return bytes(data)


def nifti2(*dims: int) -> bytes:
    """A NIfTI-2 header that states these dimensions, and few voxels."""
    image = nib.Nifti2Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    data = bytearray(image.to_bytes())
    struct.pack_into(f"<{len(dims) + 1}q", data, 16, len(dims), *dims)
    return bytes(data)


def zeros_zipped(start: bytes, count: int) -> bytes:
    """A gzip stream of `start` and `count` zeros, made without holding them."""
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packed.compress(start)]
    block = bytes(MEBI)
    pieces += [packed.compress(block) for _ in range(count // MEBI)]
    return b"".join([*pieces, packed.flush()])


def patched(*patches: tuple[int, str, object]) -> Make:
    return written("a.nii", lambda: nifti(*patches))


def with_value(value: float) -> Make:
    voxels = np.zeros(SIDE**3, np.float32)
    voxels[7] = value
    return written("a.nii", lambda: nifti(voxels=voxels.tobytes()))


def pair_with_endless_voxels(folder: Path) -> Path:
    header = nib.Nifti1Pair(np.zeros((SIDE,) * 3, np.float32), np.eye(4))
    nib.save(header, folder / "a.hdr")
    (folder / "a.img").unlink()
    (folder / "a.img").symlink_to("/dev/zero")
    return folder / "a.hdr"


def pair_without_voxels(folder: Path) -> Path:
    pair_with_endless_voxels(folder)
    (folder / "a.img").unlink()
    return folder / "a.hdr"


def pipe(name: str) -> Make:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def link(name: str, target: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def zipped_twice() -> bytes:
    return gzip.compress(gzip.compress(nifti()))


def broken_checksum() -> bytes:
    data = bytearray(gzip.compress(nifti()))
    data[-6] ^= 0xFF
    return bytes(data)


NO_NUMBER, INFINITE = float("nan"), float("inf")

NIFTI = [
    Hostile("nifti: 32767 cubed voxels in 1 kB", "image", "too_large",
            patched((40, "4h", (3, 32767, 32767, 32767)))),
    Hostile("nifti: an axis of -5 voxels", "image", "empty_axis", patched((42, "h", -5))),
    Hostile("nifti: an axis of 0 voxels", "image", "empty_axis", patched((42, "h", 0))),
    Hostile("nifti: 9 axes", "image", "corrupt", patched((40, "h", 9))),
    Hostile("nifti: -3 axes", "image", "corrupt", patched((40, "h", -3))),
    Hostile("nifti: voxels begin at NaN", "image", "corrupt", patched((108, "f", NO_NUMBER))),
    Hostile("nifti: voxels begin at 1e30", "image", "corrupt", patched((108, "f", 1e30))),
    Hostile("nifti: voxels begin before the file", "image", "corrupt",
            patched((108, "f", -4096.0))),
    Hostile("nifti: voxels begin inside the header", "image", "corrupt",
            patched((108, "f", 16.0))),
    Hostile("nifti: a voxel type nobody knows", "image", "unsupported_pixels",
            patched((70, "h", 9999))),
    Hostile("nifti: complex voxels", "image", "complex", patched((70, "2h", (32, 64)))),
    Hostile("nifti: scaling by infinity", "image", "bad_scaling",
            patched((112, "2f", (INFINITE, 0)))),
    Hostile("nifti: NaN in the affine", "image", "bad_affine", patched((280, "f", NO_NUMBER))),
    Hostile("nifti: voxels of 1e30 mm", "image", "absurd_spacing", patched((280, "f", 1e30))),
    Hostile("nifti: an affine of rank 2", "image", "absurd_spacing", patched((280, "f", 0.0))),
    Hostile("nifti: a grid sheared by 45 degrees", "image", "shear", patched((284, "f", 1.0))),
    Hostile("nifti: a rotation that is none", "image", "bad_affine",
            patched((252, "2h", (1, 0)), (256, "3f", (INFINITE, 9.0, NO_NUMBER)))),
    Hostile("nifti: no placement at all", "image", "no_geometry", patched((252, "2h", (0, 0)))),
    Hostile("nifti: ends inside its voxels", "image", "truncated",
            written("a.nii", lambda: nifti()[:-9])),
    Hostile("nifti: empty file", "image", "empty_file", written("a.nii", b"")),
    Hostile("nifti: NaN among the voxels", "image", "non_finite", with_value(NO_NUMBER)),
    Hostile("nifti: infinity among the voxels", "image", "non_finite", with_value(INFINITE)),
    Hostile("nifti: 10000 time points", "image", "four_dimensional",
            patched((40, "5h", (4, 2, 2, 2, 10000)))),
    Hostile("nifti-2: 2^62 voxels along an axis", "image", "too_large",
            written("a.nii", lambda: nifti2(2**62, 2, 2))),
    Hostile("nifti-2: sizes whose product is 2^64", "image", "too_large",
            written("a.nii", lambda: nifti2(2**32, 2**31, 2))),
    Hostile("nifti: a gigabyte of zeros zipped behind the voxels", "image", "trailing_data",
            written("a.nii.gz", lambda: zeros_zipped(nifti(), 1 << 30))),
    Hostile("nifti: zipped twice", "image", "unknown_format",
            written("a.nii.gz", zipped_twice)),
    Hostile("nifti: a checksum that fails", "image", "corrupt",
            written("a.nii.gz", broken_checksum)),
    Hostile("nifti: a gzip stream cut short", "image", "truncated",
            written("a.nii.gz", lambda: gzip.compress(nifti())[:-20])),
    Hostile("nifti: a pair whose voxels link to /dev/zero", "image", "truncated",
            pair_with_endless_voxels),
    Hostile("nifti: a pair without its voxels", "image", "missing_file", pair_without_voxels),
    Hostile("a pipe that nobody writes to", "image", "missing_file", pipe("a.nii")),
    Hostile("a link to /dev/zero", "image", "missing_file", link("a.nii", "/dev/zero")),
    Hostile("a link to itself", "image", "missing_file", link("a.nii", "a.nii")),
    Hostile("a link to the users of this machine", "image", "unknown_format",
            link("a.nii", "/etc/passwd")),
    Hostile("a name that writes to the terminal", "image", "truncated",
            written("a\n\x1b[2Jok: done.nii", lambda: nifti()[:-9])),
    Hostile("nifti label: halves instead of whole numbers", "label", "not_integer",
            with_value(0.5)),
    Hostile("nifti label: a value of 1e30", "label", "not_integer", with_value(1e30)),
]  # fmt: skip


def nrrd(*lines: str, voxels: bytes = bytes(48)) -> Make:
    """A NRRD of 2x3x4 shorts with header lines replaced or added."""
    fields = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "2 3 4",
        "space directions": "(1,0,0) (0,1,0) (0,0,1)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(0,0,0)",
    }
    fields |= dict(line.split(": ", 1) for line in lines)
    text = "NRRD0005\n" + "".join(f"{name}: {value}\n" for name, value in fields.items()) + "\n"
    return written("a.nrrd", text.encode() + voxels)


NRRD = [
    Hostile("nrrd: 10^15 voxels", "image", "too_large", nrrd("sizes: 100000 100000 100000")),
    Hostile("nrrd: an axis of -4 voxels", "image", "empty_axis", nrrd("sizes: 2 3 -4")),
    Hostile("nrrd: voxels in the users of this machine", "image", "outside_file",
            nrrd("data file: /etc/passwd")),
    Hostile("nrrd: voxels in a folder above", "image", "outside_file",
            nrrd("data file: ../../../../../etc/passwd")),
    Hostile("nrrd: voxels by a list of files", "image", "outside_file", nrrd("data file: LIST")),
    Hostile("nrrd: a header without an end", "image", "too_large",
            written("a.nrrd", b"NRRD0005\n" + b"#" * (2 * MEBI))),
    Hostile("nrrd: directions that are no numbers", "image", "bad_affine",
            nrrd("space directions: (nan,0,0) (0,1,0) (0,0,1)")),
    Hostile("nrrd: four axes and three sizes", "image", "corrupt", nrrd("dimension: 4")),
    Hostile("nrrd: a gigabyte of zeros behind the voxels", "image", "trailing_data",
            nrrd("encoding: gzip", voxels=zeros_zipped(bytes(48), 1 << 30))),
    Hostile("nrrd: skips 10^15 bytes", "image", "unsupported_encoding",
            nrrd("byte skip: 1000000000000000")),
    Hostile("nrrd: an encoding nobody knows", "image", "unsupported_encoding",
            nrrd("encoding: pickle")),
]  # fmt: skip


def metaimage(*lines: str, voxels: bytes = bytes(48)) -> Make:
    """A MetaImage of 2x3x4 shorts with header lines replaced or added."""
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "DimSize": "2 3 4",
        "ElementSpacing": "1 1 1",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    }
    fields |= dict(line.split(" = ", 1) for line in lines)
    fields["ElementDataFile"] = fields.pop("ElementDataFile")  # always the last
    text = "".join(f"{name} = {value}\n" for name, value in fields.items())
    return written("a.mha", text.encode() + voxels)


def packed(count: int) -> bytes:
    stream = io.BytesIO()
    compressor = zlib.compressobj(9)
    for _ in range(count // MEBI):
        stream.write(compressor.compress(bytes(MEBI)))
    stream.write(compressor.flush())
    return stream.getvalue()


METAIMAGE = [
    Hostile("metaimage: 10^15 voxels", "image", "too_large",
            metaimage("DimSize = 100000 100000 100000")),
    Hostile("metaimage: 100 axes", "image", "corrupt", metaimage("NDims = 100")),
    Hostile("metaimage: voxels in the users of this machine", "image", "outside_file",
            metaimage("ElementDataFile = /etc/passwd")),
    Hostile("metaimage: voxels in a folder above", "image", "outside_file",
            metaimage("ElementDataFile = ../../../../../etc/passwd")),
    Hostile("metaimage: voxels by a pattern of files", "image", "outside_file",
            metaimage("ElementDataFile = a%d.raw 1 4 1")),
    Hostile("metaimage: a header without an end", "image", "too_large",
            written("a.mha", b"ObjectType = Image\nComment = " + b"x" * (2 * MEBI))),
    Hostile("metaimage: a billion channels", "image", "vector",
            metaimage("ElementNumberOfChannels = 1000000000")),
    Hostile("metaimage: a matrix of NaN", "image", "bad_affine",
            metaimage("TransformMatrix = nan 0 0 0 1 0 0 0 1")),
    Hostile("metaimage: half a gigabyte of zeros zipped", "image", "trailing_data",
            metaimage("CompressedData = True", voxels=packed(1 << 29))),
    Hostile("metaimage: a voxel type nobody knows", "image", "unsupported_pixels",
            metaimage("ElementType = MET_OTHER")),
]  # fmt: skip

HARMLESS_VOLUMES = [
    Hostile("nifti: scaling by NaN, which NIfTI knows as none", "image", "",
            patched((112, "2f", (NO_NUMBER, 0)))),
]  # fmt: skip

VOLUMES = [*NIFTI, *NRRD, *METAIMAGE]
