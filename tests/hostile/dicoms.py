"""Hostile DICOM files, each made from one sound slice."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from table import Hostile, Make
from volumes import zeros_zipped

from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.write import write_series

SLICES = 4
JPEG_2000, JPEG_LS, RLE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
DEFLATED = "1.2.840.10008.1.2.1.99"


def sound(folder: Path) -> list[Path]:
    """A sound series of four slices."""
    voxels = np.random.default_rng(5).integers(0, 900, (1, 8, 8, SLICES)).astype(np.float32)
    image = MetaTensor(torch.from_numpy(voxels), affine=torch.eye(4, dtype=torch.float64))
    return write_series(folder, image)


def changed(change: Callable[[Dataset], None], only: int | None = None) -> Make:
    """A series with a change to all of its slices, or to one."""

    def make(folder: Path) -> Path:
        for index, path in enumerate(sound(folder)):
            if only is None or index == only:
                with tolerant_pydicom():
                    dataset = pydicom.dcmread(path)
                    change(dataset)
                    dataset.save_as(path)
        return folder

    return make


def with_attribute(name: str, value: Any, only: int | None = None) -> Make:
    return changed(lambda dataset: setattr(dataset, name, value), only)


def with_raw(keyword: str, value: bytes, number: int = 1) -> Make:
    """A series in which `number` values of an element are text that no writer would write."""

    def make(folder: Path) -> Path:
        sound_text = "\\".join(["7.1312577"] * number)
        with_attribute(keyword, sound_text.split("\\") if number > 1 else sound_text)(folder)
        place = sound_text.encode()
        for path in folder.glob("*.dcm"):
            content = path.read_bytes()
            assert place in content
            path.write_bytes(content.replace(place, value.ljust(len(place))))
        return folder

    return make


PIXEL_TAG = b"\xe0\x7f\x10\x00"


def inserted(tail: bytes | Callable[[], bytes]) -> Make:
    """A series whose first file has more before its pixels."""

    def make(folder: Path) -> Path:
        path = sound(folder)[0]
        head, pixels = path.read_bytes().split(PIXEL_TAG, 1)
        path.write_bytes(head + (tail() if callable(tail) else tail) + PIXEL_TAG + pixels)
        return folder

    return make


def appended(tail: bytes | Callable[[], bytes]) -> Make:
    """A series whose first file goes on behind its pixels, where nothing is read."""

    def make(folder: Path) -> Path:
        path = sound(folder)[0]
        path.write_bytes(path.read_bytes() + (tail() if callable(tail) else tail))
        return folder

    return make


def encapsulated(syntax: str, frame: bytes, **attributes: Any) -> Make:
    """A series whose pixels are said to be compressed and are these bytes."""

    def change(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        for name, value in attributes.items():
            setattr(dataset, name, value)

    return changed(change)


def nested(depth: int) -> bytes:
    """A private sequence in a sequence, and so on, none of which ends."""
    level = struct.pack("<HH2sHI", 0x7FDF, 0x1010, b"SQ", 0, 0xFFFFFFFF)
    return (level + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * depth


def long_element(length: int) -> bytes:
    """An element that says it is longer than the file."""
    return struct.pack("<HH2sHI", 0x7FDF, 0x1010, b"OB", 0, length) + b"x" * 10


def deflated_bomb(folder: Path) -> Path:
    """A deflated data set that inflates to a gigabyte."""
    path = sound(folder)[0]
    for other in sorted(folder.glob("*.dcm"))[1:]:
        other.unlink()
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = UID(DEFLATED)
    dataset.save_as(path)
    content = path.read_bytes()
    head_length = 132 + 12 + struct.unpack("<I", content[140:144])[0]
    body = zlib.decompress(content[head_length:], -zlib.MAX_WBITS)
    bomb = zeros_zipped(body, 1 << 30)[10:-8]  # without gzip's head and tail
    path.write_bytes(content[:head_length] + bomb)
    return folder


def preamble_only(folder: Path) -> Path:
    (folder / "a.dcm").write_bytes(bytes(128) + b"DICM")
    return folder


def one_file(folder: Path, content: bytes) -> Path:
    (folder / "a.dcm").write_bytes(content)
    return folder


def huge_codestream() -> bytes:
    """A JPEG 2000 codestream that states 2^31 samples each way."""
    size = struct.pack(">HHIIIIIIIIH", 41, 0, 2**31, 2**31, 0, 0, 2**31, 2**31, 0, 0, 1)
    return b"\xff\x4f\xff\x51" + size + b"\x07\x01\x01" + bytes(40)


def link_round(folder: Path) -> Path:
    """A folder that holds itself."""
    (folder / "again").symlink_to(folder, target_is_directory=True)
    return folder


DICOM = [
    Hostile("dicom: sequences nested 5000 deep", "image", "unreadable",
            inserted(lambda: nested(5000))),
    Hostile("dicom: an element without an end", "image", "unreadable",
            inserted(long_element(0xFFFFFFFF))),
    Hostile("dicom: a deflated data set of a gigabyte", "image", "too_large", deflated_bomb),
    Hostile("dicom: 65535 rows and columns in 128 bytes", "image", "truncated",
            changed(lambda d: d.update({"Rows": 65535, "Columns": 65535}))),
    Hostile("dicom: no rows", "image", "empty_axis", with_attribute("Rows", 0)),
    Hostile("dicom: 2^31 - 1 frames", "image", "unreadable",
            with_attribute("NumberOfFrames", 2**31 - 1)),
    Hostile("dicom: -1 frames", "image", "undecodable", with_attribute("NumberOfFrames", -1)),
    Hostile("dicom: 7 bits allocated", "image", "bad_pixel_format",
            with_attribute("BitsAllocated", 7)),
    Hostile("dicom: 255 samples a pixel", "image", "truncated",
            with_attribute("SamplesPerPixel", 255)),
    Hostile("dicom: pixels of 0 mm", "image", "absurd_spacing",
            with_attribute("PixelSpacing", [0, 0])),
    Hostile("dicom: pixels of -1 mm", "image", "absurd_spacing",
            with_attribute("PixelSpacing", [-1, -1])),
    Hostile("dicom: pixels of 1e300 mm", "image", "absurd_spacing",
            with_attribute("PixelSpacing", [1e300, 1e300])),
    Hostile("dicom: spacing that is no number", "image", "missing_geometry",
            with_raw("PixelSpacing", b"NaN\\NaN", 2)),
    Hostile("dicom: spacing that is a command", "image", "missing_geometry",
            with_raw("PixelSpacing", b"$(reboot)\\1", 2)),
    Hostile("dicom: an orientation of zeros", "image", "bad_orientation",
            with_attribute("ImageOrientationPatient", [0] * 6)),
    Hostile("dicom: all slices at one place", "image", "duplicate_slice",
            with_attribute("ImagePositionPatient", [0, 0, 0])),
    Hostile("dicom: a slice at infinity", "image", "missing_geometry",
            with_raw("ImagePositionPatient", b"0\\0\\1e999", 3)),
    Hostile("dicom: rescaling by infinity", "image", "bad_scaling",
            with_raw("RescaleSlope", b"1e999")),
    Hostile("dicom: a JPEG 2000 frame of noise", "image", "truncated",
            encapsulated(JPEG_2000, b"\xff\x4f" + bytes(range(200)))),
    Hostile("dicom: a JPEG 2000 frame of 2^31 samples each way", "image", "truncated",
            encapsulated(JPEG_2000, huge_codestream())),
    Hostile("dicom: a JPEG-LS frame of noise", "image", "truncated",
            encapsulated(JPEG_LS, bytes(range(200)))),
    Hostile("dicom: an RLE frame of a billion segments", "image", "undecodable",
            encapsulated(RLE, struct.pack("<16I", 10**9, *[2**31] * 15) + bytes(64))),
    Hostile("dicom: an encoding nobody knows", "image", "several_series",
            changed(lambda d: setattr(d.file_meta, "TransferSyntaxUID", UID("1.2.3.4.5")))),
    Hostile("dicom: nothing behind its preamble", "image", "truncated", preamble_only),
    Hostile("dicom: noise behind its preamble", "image", "unreadable",
            lambda folder: one_file(folder, bytes(128) + b"DICM" + bytes(range(256)) * 8)),
    Hostile("dicom: a directory of files elsewhere", "image", "not_image",
            with_attribute("SOPClassUID", "1.2.840.10008.1.3.10")),
    Hostile("dicom: a folder that holds itself, and no image", "image", "not_image", link_round),
]  # fmt: skip

HARMLESS_DICOM = [
    Hostile("dicom: an element of 4 GB that is not there", "image", "",
            appended(long_element(0xFFFFFFF0))),
    Hostile("dicom: sequences nested 5000 deep behind the pixels", "image", "",
            appended(lambda: nested(5000))),
    Hostile("dicom: an element without an end behind the pixels", "image", "",
            appended(long_element(0xFFFFFFFF))),
]  # fmt: skip
