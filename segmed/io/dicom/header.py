"""Header of one DICOM file, read without its pixels.

Its bytes are measured against what its header promises, so that a truncated file is known before a
voxel is decoded. Nothing here raises for the content of a file: the fault is part of the answer.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np
import pydicom
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from segmed.formats import DICOM_SUFFIXES
from segmed.io.dicom.elements import Elements, numbers, words
from segmed.io.dicom.frames import Slice, slices_of
from segmed.io.dicom.patient import PATIENT_TAGS, patient_key, person_keys
from segmed.io.dicom.pixel_format import pixel_format_fault
from segmed.io.dicom.quick import quick_header
from segmed.io.dicom.traits import TRAIT_TAGS
from segmed.io.head import looks_like_dicom

MAX_INFLATED_BYTES = 1 << 30
"""Largest deflated data set that is inflated."""

MAX_INFLATION, FREE_INFLATED_BYTES = 100, 1 << 24
"""How many times its size a deflated data set may become once it is beyond so many bytes: images do
not come near; empty elements do, and each of them would be parsed."""

TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", *PATIENT_TAGS,
    "Modality", "SeriesDescription", "SeriesNumber", "InstanceNumber",
    "BodyPartExamined", "ImagesInAcquisition", "ImageType", *TRAIT_TAGS,
    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "Rows", "Columns", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence",
    "LossyImageCompression", "BurnedInAnnotation",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
MAGIC, PREAMBLE_BYTES = b"DICM", 132
UID_ROOT, ZIP_MAGIC = b"1.2.840.10008.", b"PK\x03\x04"
HEAD_BYTES = 512
"""Within these a DICOM file names its SOP class and transfer syntax, whose UIDs begin so."""

_SAVED_QUARTERS = {"YBR_FULL_422": 4, "YBR_PARTIAL_422": 4, "YBR_PARTIAL_420": 6}
"""Samples that uncompressed images in colour leave out, in quarters of a sample a pixel.

Source: DICOM PS3.3 C.7.6.3.1.2 (Photometric Interpretation)."""

_PIXEL_TAGS = {(0x7FE0, 0x0008): 4, (0x7FE0, 0x0009): 8, (0x7FE0, 0x0010): 0}
_LONG_VRS = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN"}
_ITEM, _DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class HeaderFault:
    """Reason why a file or a series cannot be used.

    Attributes:
        reason: Stable code.
        message: One line, without identifiers.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class DicomHeader:
    """One DICOM file, as far as reading its series needs it.

    Attributes:
        path: The file.
        sop_class: SOP class UID.
        sop_uid: SOP instance UID.
        series_uid: Series instance UID; empty where the file is too short to say.
        study_uid: Study instance UID.
        patient_key: Short hash of the patient, see `segmed.io.dicom.patient`.
        person_keys: Short hashes of name and date of birth, empty where not stated.
        modality: Such as `MR`.
        image_type: Values of ImageType.
        description: SeriesDescription; personal, never logged.
        body_part: BodyPartExamined.
        contrast_agent: ContrastBolusAgent; free text, never logged.
        rows: Pixels down.
        columns: Pixels across.
        samples: Values a pixel.
        bits_allocated: Bits of the container of one value.
        photometric: Such as `MONOCHROME2`.
        transfer_syntax: How the pixels are encoded.
        frame_of_reference: UID of the space of the positions.
        instance_number: Number in the series, if stated.
        images_in_acquisition: How many images the scanner made, if stated.
        has_pixels: Whether there is pixel data.
        has_lut: Whether values need a look-up table instead of a slope.
        is_lossy: Whether the pixels were ever compressed with loss.
        has_text: Whether the pixels show text about the patient, by BurnedInAnnotation.
        slices: One per frame.
        series_number: SeriesNumber as text.
        is_certain: Whether the content is DICOM's beyond doubt: it begins as a DICOM file does.
        fault: What is wrong with this file by itself.
    """

    path: Path
    sop_class: str = ""
    sop_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    patient_key: str = ""
    person_keys: tuple[str, str] = ("", "")
    modality: str = ""
    image_type: tuple[str, ...] = ()
    description: str = field(default="", repr=False)
    body_part: str = ""
    contrast_agent: str = field(default="", repr=False)
    rows: int = 0
    columns: int = 0
    samples: int = 1
    bits_allocated: int = 0
    photometric: str = ""
    transfer_syntax: str = ""
    frame_of_reference: str = field(default="", repr=False)
    instance_number: int | None = None
    images_in_acquisition: int | None = None
    has_pixels: bool = False
    has_lut: bool = False
    is_lossy: bool = False
    has_text: bool = False
    slices: tuple[Slice, ...] = ()
    series_number: str = ""
    is_certain: bool = False
    fault: HeaderFault | None = None


@contextmanager
def tolerant_pydicom() -> Iterator[None]:
    """Silence pydicom's remarks on odd values, in warnings and in its log.

    Every value used is checked by our own rules, and the remarks quote values, which are personal.
    """
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom(\..*)?")
        yield


def _was_dicom(path: Path, start: bytes) -> bool:
    """Return whether the name of a file, or UIDs in it, show that it was DICOM once."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    return UID_ROOT in start and b"\0" in start and not start.startswith(ZIP_MAGIC)


def read_header(path: Path, *, quick: bool = True) -> DicomHeader | None:
    """Read one file's header.

    Args:
        path: Any file.
        quick: Try the short way of `quick` first.

    Returns:
        The header, with its fault where it has one; None where the file is not DICOM at all.
        An empty file counts as a DICOM file that lost its content, and so does one that says by
        its name, or by the UIDs in it, that it was DICOM.
    """
    is_certain = False
    try:
        with path.open("rb") as stream:
            start = stream.read(HEAD_BYTES)
            if not start:
                return DicomHeader(path, fault=HeaderFault("empty_file", "the file has no bytes"))
            if len(start) < 132 and not any(start):
                return DicomHeader(
                    path, fault=HeaderFault("truncated", "the file ends in its preamble")
                )
            if not looks_like_dicom(start[:132]):
                if not _was_dicom(path, start):
                    return None
                return DicomHeader(
                    path, fault=HeaderFault("unreadable", "its begin is not DICOM's")
                )
            is_certain = start[128:132] == MAGIC
            if is_certain and len(start) == PREAMBLE_BYTES:
                fault = HeaderFault("truncated", "the file ends behind its preamble")
                return DicomHeader(path, is_certain=True, fault=fault)
            stream.seek(0)
            return replace(_read(path, stream, quick=quick), is_certain=is_certain)
    except Exception as error:  # noqa: BLE001 - isolation boundary: one file of a whole tree
        fault = HeaderFault("unreadable", f"the header cannot be parsed ({_kind(error)})")
        return DicomHeader(path, is_certain=is_certain, fault=fault)


def _kind(error: BaseException) -> str:
    """An error's class: its text may quote the file's content, which may be personal."""
    return type(error).__name__


def _read(path: Path, stream: IO[bytes], *, quick: bool) -> DicomHeader:
    size = path.stat().st_size
    plain = quick_header(stream, size, TAGS) if quick else None
    if plain is not None:
        header = _fields(plain.values, path, plain.transfer_syntax)
        stream.seek(plain.end)
        return _with_pixels(header, stream, size)
    if _is_deflated_bomb(stream, size):
        return DicomHeader(
            path, fault=HeaderFault("too_large", "the deflated content is too large")
        )
    stream.seek(0)
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=TAGS)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
    return _with_pixels(_fields(dataset, path, syntax), stream, size)


def _with_pixels(header: DicomHeader, stream: IO[bytes], size: int) -> DicomHeader:
    """Add facts of the pixel data, at the position of the stream."""
    fault = None
    encoding = UID(header.transfer_syntax)
    if encoding == DeflatedExplicitVRLittleEndian:
        has_pixels = bool(header.rows and header.columns)  # its length is checked when decoded
    else:
        has_pixels, fault = _measure_pixels(stream, size, header, encoding)
        if not has_pixels and fault is None and not header.series_uid:
            fault = _nameless_fault(header)
    return replace(header, has_pixels=has_pixels, fault=header.fault or fault)


def _nameless_fault(header: DicomHeader) -> HeaderFault | None:
    """The fault of a file with neither pixels nor a series."""
    if "Image Storage" in UID(header.sop_class).name:
        return HeaderFault("truncated", "the file ends before its pixels")
    if header.sop_class:
        return None
    return HeaderFault(
        "unreadable", "it names neither its kind nor a series and contains no pixels"
    )


def _is_deflated_bomb(stream: IO[bytes], size: int) -> bool:
    """Return whether a deflated data set inflates beyond the limit; stops reading there."""
    stream.seek(0)
    start = stream.read(2048)
    where = start.find(DeflatedExplicitVRLittleEndian.encode())
    if where < 0 or len(start) < 144:
        return False
    length = struct.unpack("<I", start[140:144])[0]  # (0002,0000), right after the magic
    stream.seek(144 + length)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    most = min(MAX_INFLATED_BYTES, max(FREE_INFLATED_BYTES, MAX_INFLATION * size))
    total, pending = 0, b""
    while pending or (pending := stream.read(1 << 16)):
        total += len(inflater.decompress(pending, 1 << 22))
        pending = inflater.unconsumed_tail
        if total > most:
            return True
        if inflater.eof:
            break
    return False


def _fields(dataset: Elements, path: Path, transfer_syntax: str) -> DicomHeader:
    def text(name: str) -> str:
        return str(dataset.get(name) or "").strip("\0 ")

    def whole(name: str) -> int | None:
        value = numbers(dataset, name, 1)
        return int(value[0]) if value is not None else None

    fault = None
    try:
        slices = slices_of(dataset)
    except Exception as error:  # noqa: BLE001 - isolation boundary: pydicom raises what it likes
        slices, fault = (
            (),
            HeaderFault("unreadable", f"its geometry cannot be parsed ({_kind(error)})"),
        )
    if fault is None and len(slices) != max(whole("NumberOfFrames") or 1, 1):
        fault = HeaderFault("unreadable", "the number of frames and of their places differ")
    if fault is None and (unsound := pixel_format_fault(dataset)):
        fault = HeaderFault("bad_pixel_format", unsound)
    return DicomHeader(
        path=path,
        sop_class=text("SOPClassUID"),
        sop_uid=text("SOPInstanceUID"),
        series_uid=text("SeriesInstanceUID"),
        study_uid=text("StudyInstanceUID"),
        patient_key=patient_key(dataset),
        person_keys=person_keys(dataset),
        modality=text("Modality"),
        image_type=words(dataset, "ImageType"),
        description=text("SeriesDescription"),
        body_part=text("BodyPartExamined"),
        contrast_agent=text("ContrastBolusAgent"),
        rows=whole("Rows") or 0,
        columns=whole("Columns") or 0,
        samples=whole("SamplesPerPixel") or 1,
        bits_allocated=whole("BitsAllocated") or 0,
        photometric=text("PhotometricInterpretation"),
        transfer_syntax=transfer_syntax,
        frame_of_reference=text("FrameOfReferenceUID"),
        instance_number=whole("InstanceNumber"),
        images_in_acquisition=whole("ImagesInAcquisition"),
        has_lut="ModalityLUTSequence" in dataset,
        is_lossy=text("LossyImageCompression") == "01",
        has_text=text("BurnedInAnnotation").upper() == "YES",
        slices=slices,
        series_number=text("SeriesNumber"),
        fault=fault,
    )


def _measure_pixels(
    stream: IO[bytes], size: int, header: DicomHeader, encoding: UID
) -> tuple[bool, HeaderFault | None]:
    """Return whether pixel data follow, and whether they are all there.

    pydicom leaves the stream at the tag of the pixel data, or at the end of the file.
    """
    begin = stream.read(12)
    order = "<" if encoding.is_little_endian else ">"
    if len(begin) < 8:
        return False, HeaderFault("truncated", "the file ends inside its header") if begin else None
    tag = struct.unpack(order + "HH", begin[:4])
    if tag not in _PIXEL_TAGS:
        return False, None
    if encoding.is_implicit_VR:
        length, consumed = struct.unpack(order + "I", begin[4:8])[0], 8
    elif begin[4:6] in _LONG_VRS and len(begin) == 12:
        length, consumed = struct.unpack(order + "I", begin[8:12])[0], 12
    else:
        return True, HeaderFault("unreadable", "the pixel data have no known value representation")
    stream.seek(consumed - len(begin), 1)
    here = stream.tell()
    if length == _UNDEFINED:
        return True, _measure_fragments(stream, size)
    bits = header.bits_allocated or 8 * _PIXEL_TAGS[tag]
    frames = max(len(header.slices), 1)
    saved = _SAVED_QUARTERS.get(header.photometric, 0) if header.samples == 3 else 0
    quarters = 4 * header.samples - saved
    wanted = (header.rows * header.columns * quarters * frames * bits + 31) // 32
    if here + length > size or length < wanted:
        there = min(length, size - here)
        return True, HeaderFault(
            "truncated", f"{max(there, 0)} of {max(wanted, length)} bytes of pixel data are there"
        )
    stream.seek(here + wanted)
    if wanted and _has_content(stream, length - wanted):
        return True, HeaderFault(
            "excess_pixels", f"{length} bytes of pixel data, the header accounts for {wanted}"
        )
    return True, None


def _has_content(stream: IO[bytes], length: int) -> bool:
    """Return whether so many bytes are more than padding: more than one, and not all zero."""
    while length > 1 and (block := stream.read(min(length, 1 << 16))):
        if any(block):
            return True
        length -= len(block)
    return False


def _measure_fragments(stream: IO[bytes], size: int) -> HeaderFault | None:
    """Walk the items of encapsulated pixel data to their end, without reading them."""
    items = 0
    while len(begin := stream.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", begin)
        if (group, element) == _DELIMITER:
            if items < 2:
                return HeaderFault("truncated", "the encapsulated pixel data contain no frame")
            return None
        if (group, element) != _ITEM or stream.tell() + length > size:
            break
        items += 1
        stream.seek(length, 1)
    return HeaderFault("truncated", "the encapsulated pixel data end too early")


def finite(values: Sequence[float] | None) -> bool:
    """Return whether numbers are there and none is NaN or infinite."""
    return values is not None and bool(np.isfinite(values).all())
