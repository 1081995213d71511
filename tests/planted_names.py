"""Cases whose headers, files and folders name persons, and a search for these names.

Each planted value differs from all others, so that a finding says where it came from. Names have
letters beyond ASCII: encodings that differ for them alone are searched, too.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import html
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache
from pathlib import Path
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pydicom
import torch
from monai.data import MetaTensor

from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.write import write_series
from segmed.manifest import Case, Channel, LabelClass, Manifest, write_manifest

LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2))
BORN = date(1947, 11, 3)

HEADER = {
    "PatientName": "Müßiggang^Anneliese",
    "PatientID": "PID77881203",
    "PatientBirthDate": f"{BORN:%Y%m%d}",
    "PatientAddress": "Sonnenhang",
    "PatientMotherBirthName": "Übelacker",
    "OtherPatientIDs": "OPID33445566",
    "AccessionNumber": "ACC5566123",
    "StudyID": "STD90817",
    "InstitutionName": "Klinik Seeblick",
    "InstitutionAddress": "Uferpromenade",
    "InstitutionalDepartmentName": "Abteilung Wolkenstein",
    "StationName": "KONSOLE77",
    "DeviceSerialNumber": "SNR99117733",
    "ReferringPhysicianName": "Zweistein^Ottokar",
    "PerformingPhysicianName": "Dreistein^Kunigunde",
    "NameOfPhysiciansReadingStudy": "Fünfstein^Leopold",
    "OperatorsName": "Vierstein^Eulalia",
    "ProtocolName": "Messung Rosenzweig",
    "SeriesDescription": "Serie Lilienthal",
    "StudyDescription": "Verlauf Tulpenfeld",
}
"""Elements of every planted file."""

SHOWN_ELEMENTS = {
    "Manufacturer": "ACME",
    "ManufacturerModelName": "One of Seeblick, Zweistein, Müßiggang and Anneliese",
    "ScanningSequence": "GR",
    "ConvolutionKernel": "sharp Dreistein",
    "PatientAge": "067Y",
    "PatientSex": "F",
}
"""Elements that groups of cases are made of; words that name somebody were written into them."""

CASE_NAME, GROUP_NAME, FILE_NAME, FOLDER_NAME = (
    "Fallmann", "Gruppenbär", "Dateivogel", "Ordnerfuchs",
)  # fmt: skip
SCANS = "scans"
"""Folder of the series."""

SET_NAME = "Sammlung Storchenwiese"
PATH_WORDS = (CASE_NAME, GROUP_NAME, FILE_NAME, FOLDER_NAME, "Storchenwiese")

COMMON = {"Klinik", "Abteilung", "Messung", "Serie", "Verlauf"}
"""Words of the values that name nobody."""

WORDS = (
    *(
        word
        for value in HEADER.values()
        for word in re.split(r"[\s^]+", value)
        if word not in COMMON
    ),
    *PATH_WORDS,
)
"""All that must occur nowhere."""


def plant_series(folder: Path, image: Path, number: int) -> Path:
    """A real image as a DICOM series whose headers, files and folder name persons."""
    loaded = nib.load(image)
    voxels = np.asarray(loaded.dataobj).astype(np.float32)[None]
    series = folder / f"{FOLDER_NAME} {number}"
    for path in write_series(series, MetaTensor(torch.from_numpy(voxels), affine=loaded.affine)):
        with tolerant_pydicom():
            dataset = pydicom.dcmread(path)
            dataset.SpecificCharacterSet = "ISO_IR 192"
            for keyword, value in {**HEADER, **SHOWN_ELEMENTS}.items():
                setattr(dataset, keyword, value)
            dataset.PatientID = f"{dataset.PatientID}-{number}"
            dataset.save_as(path.with_name(f"{FILE_NAME}_{path.name}"))
        path.unlink()
    return series


def plant_set(root: Path, sample: Path, number: int, *, broken: int = 0) -> Path:
    """A manifest of planted series with references.

    Args:
        root: Its folder.
        sample: Folder with `images` and `labels` of real cases.
        number: How many cases.
        broken: How many further ones of which a slice is missing, so that they are refused.

    Returns:
        The manifest.
    """
    cases = []
    images = sorted((sample / "images").glob("*.nii.gz"))[: number + broken]
    for place, image in enumerate(images):
        series = plant_series(root / SCANS, image, place)
        if place >= number:
            sorted(series.iterdir())[7].unlink()
        label = root / "labels" / f"{FILE_NAME}_{place}.nii.gz"
        label.parent.mkdir(exist_ok=True)
        found = nib.load(sample / "labels" / image.name)
        nib.save(nib.Nifti1Image(np.asarray(found.dataobj).astype(np.uint8), found.affine), label)
        name, group = f"{CASE_NAME}-{place}", f"{GROUP_NAME}-{place}"
        cases.append(
            Case(
                id=name,
                group=group,
                image=(str(series.relative_to(root)),),
                label=str(label.relative_to(root)),
                fold=place % 2,
            )
        )
    manifest = Manifest(
        name=SET_NAME,
        labels=LABELS,
        channels=(Channel(name="T1", modality="MR"),),
        training=tuple(cases),
        root=root,
    )
    return write_manifest(manifest, root / f"{FILE_NAME}.json")


@cache
def encodings(word: str) -> set[bytes]:
    """Forms in which a word could be in a file; the search ignores the case of ASCII letters."""
    texts = {word, word.lower(), word.upper(), word.title(), word.casefold()}
    if word == f"{BORN:%Y%m%d}":
        texts |= {BORN.isoformat(), f"{BORN:%Y/%m/%d}", f"{BORN:%d.%m.%Y}", f"{BORN:%m/%d/%Y}"}
    texts |= {unicodedata.normalize("NFD", text) for text in texts}
    found: set[bytes] = set()
    for text in texts:
        plain = text.encode()
        found |= {plain, text.encode("utf-16-le"), text.encode("latin-1", "ignore")}
        found |= {quote(text).encode(), json.dumps(text)[1:-1].encode()}
        found |= {html.escape(text).encode("ascii", "xmlcharrefreplace"), binascii.hexlify(plain)}
    return {one.lower() for one in found if len(one) > 4}


@cache
def base64_parts(word: str) -> set[bytes]:
    """The part of each base64 form that does not depend on the text around the word."""
    parts = set()
    for text in {word, word.lower(), word.upper()}:
        plain = text.encode()
        for before in range(3):
            encoded = base64.b64encode(b"\0" * before + plain)
            start, end = -(-before * 4 // 3), (before + len(plain)) * 8 // 6
            parts |= {encoded[start:end], encoded[start:end].translate(_URL_SAFE)}
    return {part for part in parts if len(part) > 5}


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def leaks(content: bytes, words: Iterable[str] = WORDS) -> set[str]:
    """Planted words in some bytes, in any encoding, also in what they embed."""
    found: set[str] = set()
    for part in _unpacked(content):
        lower = part.lower()
        found |= {word for word in words if any(form in lower for form in encodings(word))}
        found |= {word for word in words if any(form in part for form in base64_parts(word))}
    return found


def _unpacked(content: bytes) -> Iterator[bytes]:
    """The bytes themselves, unzipped; and each file that a page embeds."""
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    yield content
    for found in re.finditer(rb"data:[\w/+.-]+;base64,([A-Za-z0-9+/]+)", content):
        yield from _unpacked(base64.b64decode(found[1] + b"=" * (-len(found[1]) % 4)))
    if content[:4] == b"\x89PNG":  # compressed texts
        for place in re.finditer(rb"zTXt|iTXt", content):
            for start in range(place.end(), min(place.end() + 90, len(content))):
                if content[start : start + 1] == b"x":
                    try:
                        yield zlib.decompressobj().decompress(content[start:])
                    except zlib.error:
                        continue


def leaks_below(folder: Path, *, apart: Iterable[Path] = ()) -> dict[str, set[str]]:
    """Planted words in the names and contents of all files below a folder.

    Args:
        folder: The folder.
        apart: Files and folders that are left out.
    """
    left_out = [path.resolve() for path in apart]
    found = {}
    for path in sorted(folder.rglob("*")):
        if any(path.resolve().is_relative_to(other) for other in left_out):
            continue
        name = str(path.relative_to(folder))
        content = name.encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")
        inside = path.read_bytes() if path.is_file() else b""
        if words := leaks(content) | leaks(inside):
            found[name] = words
    return found
