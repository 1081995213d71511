"""The pixel format that a DICOM header states, valid or refused before a decoder runs."""

from __future__ import annotations

from segmed.io.dicom.elements import Elements

NAMES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
         "PixelRepresentation")  # fmt: skip

BITS_ALLOCATED = frozenset({1, 8, 16, 32, 64})


def pixel_format_fault(dataset: Elements) -> str:
    """One line on an invalid pixel format; empty if nothing is wrong with what is stated.

    Source:
        DICOM PS3.3 C.7.6.3.1 (image pixel module), PS3.5 section 8.1.1: High Bit is one less than
        Bits Stored. Readers differ in what they take from an image that states something else.
    """
    stated: dict[str, int] = {}
    for name in NAMES:
        value = _whole(dataset, name)
        if value == "":
            return f"{name} is not a whole number"
        if isinstance(value, int):
            stated[name] = value
    allocated = stated.get("BitsAllocated", 16)
    stored = stated.get("BitsStored", allocated)
    high = stated.get("HighBit", stored - 1)
    if allocated not in BITS_ALLOCATED:
        return f"BitsAllocated is {allocated}"
    if not 1 <= stored <= allocated:
        return f"BitsStored is {stored} of {allocated} bits"
    if high != stored - 1:
        return f"HighBit is {high} for {stored} bits stored: {stored - 1} is the only one defined"
    if stated.get("PixelRepresentation", 0) not in {0, 1}:
        return f"PixelRepresentation is {stated['PixelRepresentation']}"
    return ""


def _whole(dataset: Elements, name: str) -> int | str | None:
    """A whole number; None where it is not stated; an empty text for anything else."""
    try:
        value = dataset.get(name)
        if value is None or value == "":
            return None
        number = float(value)
        return int(number) if number.is_integer() else ""
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return ""
