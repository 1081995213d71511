"""DICOM files with odd headers: a real image, its elements changed one by one, bytes and all."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR",
                  b"UT", b"UV"})  # fmt: skip
PIXELS, UNDEFINED = 0x7FE00010, 0xFFFFFFFF
NUM_SLICES = 3

ODD_TEXTS = (
    b"", b" ", b"\0\0", b"0", b"-1", b"1 ", b"2", b"1.5 ", b"nan ", b"inf ", b"-inf", b"1e999 ",
    b"1e-320", b"1,5 ", b"1\\2 ", b"1\\2\\3 ", b"\\\\", b"\\1", b"abc ", b"1.2.840.10008.1.2 ",
    b"\xff\xfe", b"\xc3(", b"9" * 400, b"1\\" * 500, b"0x10", b"1_000 ", b"20240230", b"996199",
    b"1\\0\\0\\0\\1\\0", b"0\\0\\0 ", b"-0.0", b"MONOCHROME1 ", b"RGB ", b"YES ", b"x" * 70_000,
)  # fmt: skip
"""Values of text elements, of even length or not."""

ODD_BYTES = (
    b"", b"\0\0", b"\1\0", b"\2\0", b"\3\0", b"\x08\0", b"\x0c\0", b"\x0f\0", b"\x20\0", b"\x40\0",
    b"\xff\xff", b"\0\x80", b"\xff\x7f", b"\0", b"\0\0\0", bytes(4), b"\xff" * 4, b"\0\0\xc0\x7f",
    bytes(8), b"\0" * 6 + b"\xf0\x7f", b"\0" * 6 + b"\xf8\x7f", b"\xff" * 8,
    struct.pack("<d", 1e30), bytes(24), bytes(64), b"\1\0\2\0",
)  # fmt: skip
"""Values of binary elements, of their own length or not."""

IMAGE_MODULE: tuple[tuple[str, bytes], ...] = (
    ("SamplesPerPixel", b"US"), ("PhotometricInterpretation", b"CS"), ("Rows", b"US"),
    ("Columns", b"US"), ("BitsAllocated", b"US"), ("BitsStored", b"US"), ("HighBit", b"US"),
    ("PixelRepresentation", b"US"), ("PlanarConfiguration", b"US"), ("PixelAspectRatio", b"IS"),
    ("SmallestImagePixelValue", b"SS"), ("LargestImagePixelValue", b"US"),
    ("PixelPaddingValue", b"US"), ("RedPaletteColorLookupTableDescriptor", b"US"),
    ("RedPaletteColorLookupTableData", b"OW"), ("ICCProfile", b"OB"), ("NumberOfFrames", b"IS"),
    ("FrameIncrementPointer", b"AT"), ("ImagePositionPatient", b"DS"),
    ("ImageOrientationPatient", b"DS"), ("PixelSpacing", b"DS"), ("SliceThickness", b"DS"),
    ("SpacingBetweenSlices", b"DS"), ("SliceLocation", b"DS"), ("RescaleSlope", b"DS"),
    ("RescaleIntercept", b"DS"), ("RescaleType", b"LO"), ("ModalityLUTSequence", b"SQ"),
    ("VOILUTSequence", b"SQ"), ("WindowCenter", b"DS"), ("ImageType", b"CS"),
    ("InstanceNumber", b"IS"), ("ImagesInAcquisition", b"IS"), ("AcquisitionNumber", b"IS"),
    ("AcquisitionDate", b"DA"), ("AcquisitionTime", b"TM"), ("AcquisitionDateTime", b"DT"),
    ("ImageComments", b"LT"), ("DerivationDescription", b"ST"), ("EchoTime", b"DS"),
    ("EchoNumbers", b"IS"), ("DiffusionBValue", b"FD"), ("DiffusionGradientOrientation", b"FD"),
    ("NominalPercentageOfCardiacPhase", b"FL"), ("TriggerTime", b"DS"), ("InversionTime", b"DS"),
    ("TemporalPositionIdentifier", b"IS"), ("KVP", b"DS"), ("ConvolutionKernel", b"SH"),
    ("ContrastBolusAgent", b"LO"), ("FrameOfReferenceUID", b"UI"), ("SOPClassUID", b"UI"),
    ("SOPInstanceUID", b"UI"), ("SeriesInstanceUID", b"UI"), ("StudyInstanceUID", b"UI"),
    ("PatientID", b"LO"), ("PatientName", b"PN"), ("PatientAge", b"AS"), ("Modality", b"CS"),
    ("SpecificCharacterSet", b"CS"), ("RetrieveAETitle", b"AE"), ("SeriesNumber", b"IS"),
    ("LossyImageCompression", b"CS"), ("ReferencePixelX0", b"SL"), ("RegionFlags", b"UL"),
    ("LongCodeValue", b"UC"), ("TextValue", b"UT"), ("PixelDataProviderURL", b"UR"),
    ("ExtendedOffsetTable", b"OV"), ("SelectorSVValue", b"SV"), ("SelectorUVValue", b"UV"),
    ("SelectorODValue", b"OD"), ("SelectorOFValue", b"OF"), ("SelectorOLValue", b"OL"),
    ("SelectorUNValue", b"UN"),
)  # fmt: skip
"""Elements of the image modules and their neighbours, at least one of each value representation."""


@dataclass
class Element:
    """One element as bytes.

    Attributes:
        tag: Group and element.
        vr: Value representation.
        value: Bytes; of a sequence those of an odd one.
        length: Stated length, if another than that of the value.
        items: Items of a sequence; None of any other element.
    """

    tag: int
    vr: bytes
    value: bytes
    length: int | None = None
    items: list[list[Element]] | None = None

    def encoded(self) -> bytes:
        """The element as it lies in a file, explicit VR little endian."""
        value = self.value if self.items is None else b"".join(map(_item, self.items))
        head = struct.pack("<HH", self.tag >> 16, self.tag & 0xFFFF) + self.vr
        length = len(value) if self.length is None else self.length
        if self.vr in LONG:
            return head + bytes(2) + struct.pack("<I", length & 0xFFFFFFFF) + value
        return head + struct.pack("<H", length & 0xFFFF) + value


def encode(elements: Iterable[Element]) -> bytes:
    """Elements in the given order."""
    return b"".join(element.encoded() for element in elements)


def _item(elements: list[Element]) -> bytes:
    content = encode(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def parsed(path: Path) -> tuple[bytes, list[Element]]:
    """File meta information and the elements of a file whose sequences have lengths."""
    data = path.read_bytes()
    position = 144 + struct.unpack_from("<I", data, 140)[0]
    return data[:position], _elements(data[position:])


def _elements(data: bytes) -> list[Element]:
    position, found = 0, []
    while position < len(data):
        group, element = struct.unpack_from("<HH", data, position)
        vr = data[position + 4 : position + 6]
        form, at = ("<I", 8) if vr in LONG else ("<H", 6)
        start = position + at + struct.calcsize(form)
        length = struct.unpack_from(form, data, position + at)[0]
        is_encapsulated = length == UNDEFINED  # pixels, which come last
        position = len(data) if is_encapsulated else start + length
        value = data[start:position]
        if is_encapsulated:
            found.append(Element(group << 16 | element, vr, value, length))
            continue
        items = _items(value) if vr == b"SQ" else None
        found.append(Element(group << 16 | element, vr, value, items=items))
    return found


def _items(data: bytes) -> list[list[Element]]:
    position, found = 0, []
    while position < len(data):
        length = struct.unpack_from("<I", data, position + 4)[0]
        found.append(_elements(data[position + 8 : position + 8 + length]))
        position += 8 + length
    return found


def real_slices(folder: Path, syntax: UID = ExplicitVRLittleEndian) -> list[Path]:
    """Three slices of a real MR image, each shifted by a slice distance and brightened a little."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
    dataset.remove_private_tags()
    for element in [element for element in dataset if element.VR == "SQ"]:
        del dataset[element.tag]
    paths = []
    for number in range(NUM_SLICES):
        one = copy.deepcopy(dataset)
        one.PixelData = (dataset.pixel_array + 3 * number).astype("<i2").tobytes()
        place_slice(one, number)
        if syntax.is_compressed:
            one.compress(syntax, generate_instance_uid=False)
        paths.append(folder / f"{number}.dcm")
        one.save_as(paths[-1])
    return paths


def place_slice(dataset: FileDataset, number: int) -> None:
    row, column = np.reshape(np.asarray(dataset.ImageOrientationPatient, dtype=float), (2, 3))
    shifted = np.asarray(dataset.ImagePositionPatient, dtype=float) + np.cross(row, column) * number
    dataset.ImagePositionPatient = [f"{value:.4f}" for value in shifted]
    dataset.InstanceNumber = number + 1
    dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


Change = Callable[[list[Element], np.random.Generator], None]


def _pick(elements: list[Element], rng: np.random.Generator) -> Element:
    """An element of the image module, put in if it is not there."""
    keyword, vr = IMAGE_MODULE[int(rng.integers(len(IMAGE_MODULE)))]
    tag = int(pydicom.datadict.tag_for_keyword(keyword) or 0)
    for element in elements:
        if element.tag == tag:
            return element
    new = Element(tag, vr, b"")
    elements.append(new)
    elements.sort(key=lambda element: element.tag)
    return new


def _odd_value(vr: bytes, rng: np.random.Generator) -> bytes:
    is_binary = vr in LONG - {b"UC", b"UR", b"UT"} or vr in {b"AT", b"FD", b"FL", b"SL", b"SS",
                                                            b"UL", b"US"}  # fmt: skip
    pool = ODD_BYTES if is_binary else ODD_TEXTS
    return pool[int(rng.integers(len(pool)))] if rng.random() < 0.9 else rng.bytes(6)


def replace_value(elements: list[Element], rng: np.random.Generator) -> None:
    element = _pick(elements, rng)
    element.value = _odd_value(element.vr, rng)
    if element.vr not in LONG:
        element.value = element.value[:65_534]


def remove(elements: list[Element], rng: np.random.Generator) -> None:
    elements.remove(_pick(elements, rng))


def other_vr(elements: list[Element], rng: np.random.Generator) -> None:
    element = _pick(elements, rng)
    _, element.vr = IMAGE_MODULE[int(rng.integers(len(IMAGE_MODULE)))]
    element.value = element.value[:65_534]
    if rng.random() < 0.5:
        element.value = _odd_value(element.vr, rng)[:65_534]


def other_length(elements: list[Element], rng: np.random.Generator) -> None:
    element = _pick(elements, rng)
    choices = (0, 1, len(element.value) + 2, len(element.value) - 2, 0xFFFF, 0xFFFFFFFF)
    element.length = choices[int(rng.integers(len(choices)))]


def twice(elements: list[Element], rng: np.random.Generator) -> None:
    element = copy.copy(_pick(elements, rng))
    element.value = _odd_value(element.vr, rng)[:65_534]
    place = int(rng.integers(len(elements)))
    elements.insert(place, element)


def behind_pixels(elements: list[Element], rng: np.random.Generator) -> None:
    element = Element(0x7FE10010 + int(rng.integers(9)), b"LO", _odd_value(b"LO", rng)[:200])
    if rng.random() < 0.5:
        element.length = int(rng.integers(70_000))
    elements.append(element)


def sequence(elements: list[Element], rng: np.random.Generator) -> None:
    element = _pick(elements, rng)
    element.vr = b"SQ"
    inner = Element(0x00280010, b"US", b"\1\0").encoded()
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    element.value = item[: int(rng.integers(len(item) + 1))]
    element.length = 0xFFFFFFFF if rng.random() < 0.5 else None


CHANGES: tuple[Change, ...] = (
    replace_value, replace_value, replace_value, replace_value, replace_value, remove, other_vr,
    other_length, twice, behind_pixels, sequence,
)  # fmt: skip


def classic_variant(sources: list[Path], folder: Path, seed: int) -> None:
    """Write three slices with one to three changes, in one of them or in all alike."""
    rng = np.random.default_rng([1, seed])
    folder.mkdir()
    in_all = rng.random() < 0.6
    seeds = rng.integers(1 << 32, size=int(rng.integers(1, 4)))
    for number, source in enumerate(sources):
        meta, elements = parsed(source)
        for one in seeds:
            local = np.random.default_rng(one)
            change = CHANGES[int(local.integers(len(CHANGES)))]
            if in_all or number == 1:
                change(elements, local)
        (folder / source.name).write_bytes(meta + encode(elements))


def enhanced_image() -> FileDataset:
    """An enhanced MR file of three frames with the pixels of a real image."""
    classic = pydicom.dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
    dataset = FileDataset("", {}, file_meta=classic.file_meta, preamble=b"\0" * 128)
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
                    "FrameOfReferenceUID", "Modality", "Rows", "Columns", "BitsAllocated",
                    "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
                    "PhotometricInterpretation"):  # fmt: skip
        setattr(dataset, keyword, classic.get(keyword))
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.NumberOfFrames = NUM_SLICES
    dataset.SharedFunctionalGroupsSequence = [
        group(
            PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            PixelMeasuresSequence={"PixelSpacing": [0.5, 0.5], "SliceThickness": 2},
            MREchoSequence={"EffectiveEchoTime": 12.0},
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence={"ImagePositionPatient": [0, 0, 2 * number]},
            PixelValueTransformationSequence={"RescaleSlope": 1 + number, "RescaleIntercept": -5},
            FrameContentSequence={"TemporalPositionIndex": 1, "StackID": "1"},
            MRImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
        )
        for number in range(NUM_SLICES)
    ]
    frames = [classic.pixel_array + 7 * number for number in range(NUM_SLICES)]
    dataset.PixelData = np.stack(frames).astype("<i2").tobytes()
    return dataset


def group(**macros: dict[str, object]) -> Dataset:
    """One item of functional groups."""
    item = Dataset()
    for name, fields in macros.items():
        inner = Dataset()
        for keyword, value in fields.items():
            setattr(inner, keyword, value)
        setattr(item, name, [inner])
    return item


def places_in(elements: list[Element]) -> Iterator[tuple[list[Element], Element]]:
    """Every element but the pixels, at any depth, with the elements beside it."""
    for element in elements:
        if element.tag != PIXELS:
            yield elements, element
            for item in element.items or ():
                yield from places_in(item)


def enhanced_variant(source: Path, folder: Path, seed: int) -> None:
    """Write an enhanced file with one to three elements removed, emptied or of odd values."""
    rng = np.random.default_rng([2, seed])
    folder.mkdir()
    meta, elements = parsed(source)
    places = list(places_in(elements))
    for choice in rng.choice(len(places), size=int(rng.integers(1, 4)), replace=False):
        beside, element = places[choice]
        match int(rng.integers(5)):
            case 0:
                beside[:] = [other for other in beside if other is not element]
            case 1 if element.items is not None:
                element.items = element.items[: int(rng.integers(3))]
            case 2 if element.items:
                element.items = [*element.items, copy.deepcopy(element.items[0])]
            case 3:
                _, element.vr = IMAGE_MODULE[int(rng.integers(len(IMAGE_MODULE)))]
            case _:
                element.items = None
                element.value = _odd_value(element.vr, rng)
        if element.vr not in LONG:
            element.value = element.value[:65_534]
    (folder / "enhanced.dcm").write_bytes(meta + encode(elements))
