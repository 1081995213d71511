"""Distinguish patients by the identifiers in an image, as a short hash."""

from __future__ import annotations

from typing import Any

from pydicom.multival import MultiValue

from segmed.io.dicom.elements import Elements
from segmed.io.dicom.uid import short_hash

PATIENT_TAGS = ("PatientID", "PatientName", "PatientBirthDate")


def patient_key(dataset: Elements) -> str:
    """Short hash of PatientID; where it is empty, of name and date of birth; else of nothing.

    Poorly anonymised images have no PatientID, and some have a name still. The name is compared as
    it is stored, byte for byte, whatever its character set.
    """
    number = _text(dataset.get("PatientID"))
    if number:
        return short_hash(number)
    name, born = _name(dataset.get("PatientName")), _text(dataset.get("PatientBirthDate"))
    return short_hash(f"{name}\0{born}" if name.strip("^= ") or born else "")


def person_keys(dataset: Elements) -> tuple[str, str]:
    """Short hashes of the name and of the date of birth, each empty where it is not stated.

    Archives that anonymise give many patients one PatientID. Of a name the family and given name
    count, without case: titles come and go.
    """
    name, born = _name(dataset.get("PatientName")), _text(dataset.get("PatientBirthDate"))
    parts = [part.strip() for part in name.split("=")[0].upper().split("^")]
    name = "^".join(parts[:2]).strip("^ ")
    born = born.replace(".", "")
    return short_hash(name) if name else "", short_hash(born) if born else ""


def _text(value: Any) -> str:
    return str(value or "").strip("\0 ")


def _name(value: Any) -> str:
    """A name from a quick read (its bytes as Latin-1), or from pydicom's PersonName."""
    if isinstance(value, MultiValue):
        return "\\".join(map(_name, value))
    stored = getattr(value, "original_string", value)
    return stored.decode("latin-1").strip("\0 ") if isinstance(stored, bytes) else _text(stored)
