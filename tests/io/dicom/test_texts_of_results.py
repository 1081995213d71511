"""Names of patients pass into DICOM results byte for byte; structures have codes of their own."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataelem import RawDataElement

from segmed.errors import ImageError
from segmed.io import read_image
from segmed.io.dicom.rtstruct import write_rtstruct
from segmed.io.dicom.seg import private_code, write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.metatensor import MetaTensor
from segmed.structures import Code, LabelClass

WRITERS = [write_dicom_seg, write_rtstruct]
NAME = pydicom.tag.Tag("PatientName")
COMMENT = pydicom.tag.Tag("StudyDescription")
CHARACTER_SET = pydicom.tag.Tag("SpecificCharacterSet")

SOURCES = {
    "latin": (b"ISO_IR 100", "Müller^Jörg".encode("latin-1")),
    "greek": (b"ISO_IR 126", "Διονυσιος".encode("iso8859-7")),
    "utf8": (b"ISO_IR 192", "Wang^XiaoDong=王^小東".encode()),
    "gb18030": (b"GB18030", "王^小东".encode("gb18030")),
    "korean": (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
    "japanese": (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    "misspelt": (b"ISO-IR 100", "Müller".encode("latin-1")),
    "no such set": (b"LATIN1", "Müller".encode("latin-1")),
    "not what it says": (b"ISO_IR 100", "王^小東".encode()),
    "stated by nobody": (None, "Müller".encode()),
    "plain": (b"ISO_IR 100", b"Doe^Jane"),
}


@pytest.fixture
def image_of(oblique_volume: MetaTensor, tmp_path: Path):
    """Makes an image from a series whose texts have given bytes."""

    def make(character_set: bytes | None, name: bytes) -> MetaTensor:
        for path in write_series(tmp_path / "series", oblique_volume):
            dataset = pydicom.dcmread(path)
            for keyword in ("SpecificCharacterSet", "PatientName", "StudyDescription"):
                if keyword in dataset:
                    del dataset[keyword]
            dataset.save_as(path)
            texts = [(COMMENT, "LO", name), (NAME, "PN", name)]
            if character_set is not None:
                texts.append((CHARACTER_SET, "CS", character_set))
            path.write_bytes(with_elements(path.read_bytes(), texts))
        return read_image(tmp_path / "series")

    return make


def with_elements(data: bytes, elements: list[tuple[pydicom.tag.BaseTag, str, bytes]]) -> bytes:
    """A file in explicit VR with elements put where their tags belong, byte for byte."""
    for tag, vr, value in elements:
        padded = value + b" " * (len(value) % 2)
        at = 132
        while True:
            group, element = struct.unpack_from("<HH", data, at)
            if (group, element) >= (tag.group, tag.element):
                break
            is_long = data[at + 4 : at + 6] in {b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR"}
            size = struct.unpack_from("<I", data, at + 8)[0] if is_long else None
            short = struct.unpack_from("<H", data, at + 6)[0]
            at += 8 + short if size is None else 12 + size
        head = struct.pack("<HH2sH", tag.group, tag.element, vr.encode(), len(padded))
        data = data[:at] + head + padded + data[at:]
    return data


def raw(path: Path, tag: pydicom.tag.BaseTag) -> bytes | None:
    element = pydicom.dcmread(path, stop_before_pixels=True).get_item(tag)
    if element is None or isinstance(element, RawDataElement):
        return None if element is None else bytes(element.value or b"").rstrip(b" \0")
    return "\\".join(np.atleast_1d(element.value)).encode("ascii")  # read by pydicom at once


@pytest.mark.filterwarnings("ignore:.*(Specific Character Set|encoding).*:UserWarning")  # reading
@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", ["liver", "Leber äöü", "肝臓"])
def test_texts_of_the_source_are_kept_byte_for_byte(
    image_of, tmp_path: Path, write, source: str, name: str
) -> None:
    character_set, value = SOURCES[source]
    image = image_of(character_set, value)
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    label[2:5, 2:5, 1:3] = 1
    path = write(
        tmp_path / "result.dcm",
        label,
        like=image,
        labels=[LabelClass(name=name, value=1)],
        model_name="unet",
        model_version="1",
    )
    assert raw(path, NAME) == value
    assert raw(path, COMMENT) == value
    if source != "plain":
        assert raw(path, CHARACTER_SET) == character_set
    read = pydicom.dcmread(path)
    kept = (
        read.SegmentSequence[0].SegmentLabel
        if write is write_dicom_seg
        else read.StructureSetROISequence[0].ROIName
    )
    if name.isascii() or source in {"plain", "utf8", "gb18030"}:
        assert kept == name
    else:
        assert kept in {name, "Leber aou", "label 1"}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("missing", ["FrameOfReferenceUID", "SOPClassUID"])
def test_headers_that_do_not_suffice_are_refused_by_name(
    oblique_volume: MetaTensor, tmp_path: Path, write, missing: str
) -> None:
    for path in write_series(tmp_path / "series", oblique_volume):
        dataset = pydicom.dcmread(path)
        delattr(dataset, missing)
        dataset.save_as(path)
    try:
        image = read_image(tmp_path / "series")
    except ImageError as error:
        assert error.reason  # noqa: PT017 - refused already when it is read
        return
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    with pytest.raises(ImageError, match=f"lack {missing}") as refusal:
        write(
            tmp_path / "result.dcm",
            label,
            like=image,
            labels=[LabelClass(name="x", value=1)],
            model_name="m",
            model_version="1",
        )
    assert refusal.value.reason == "poor_header"
    assert not (tmp_path / "result.dcm").exists()


def test_private_codes_are_distinct_and_short() -> None:
    names = ["liver", "肝臓", "腎臓", "脾臓", "Leber", "left anterior descending artery",
             "left anterior descending vein", "foie gauche é", "foie gauche è", "a-b", "печень",
             "селезёнка", "כבד"]  # fmt: skip
    codes = [private_code(name) for name in names]
    assert len(set(codes)) == len(names)
    assert all(0 < len(code) <= 16 and code.isascii() for code in codes)
    assert private_code("liver") == "LIVER"


@pytest.mark.parametrize("count", [1, 9, 60])
def test_every_segment_has_a_colour_of_its_own(
    oblique_volume: MetaTensor, tmp_path: Path, count: int
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    labels = [
        LabelClass(name=f"s{n}", value=n, code=Code(scheme="99X", value=str(n), meaning=f"s{n}"))
        for n in range(1, count + 1)
    ]
    options = {"like": image, "labels": labels, "model_name": "m", "model_version": "1"}
    seg = pydicom.dcmread(write_dicom_seg(tmp_path / "s.dcm", label, **options))
    colours = {tuple(s.RecommendedDisplayCIELabValue) for s in seg.SegmentSequence}
    assert len(colours) == count
    rt = pydicom.dcmread(write_rtstruct(tmp_path / "r.dcm", label, **options))
    assert len({tuple(r.ROIDisplayColor) for r in rt.ROIContourSequence}) == count
