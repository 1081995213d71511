"""Segments of DICOM segmentation objects, matched to labels by name and code, never by number.

Two segments are one structure if the words of their names and of their modifiers (`Left`) agree,
whatever the case and the separators, and their codes do not contradict each other. Codes of another
scheme, and those that we make from names, decide nothing.

Source:
    DICOM PS3.3 C.8.20.4 (Segment Description Macro).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from segmed.errors import ImageError
from segmed.naming.words import chunks_of
from segmed.structures import Code, LabelClass

VALUE_TEXT = "label value {}"
"""How `write_dicom_seg` notes the label value of a segment in its description."""

OWN_SCHEME = "99SEGMED"
"""Scheme of the codes that are made from names."""


@dataclass(frozen=True)
class Segment:
    """One segment as its object describes it.

    Attributes:
        number: Segment number, which another object may give to another structure.
        name: Segment label, with its modifiers in front unless the label says them.
        code: Property type; None without one, or if it was made from the name.
        noted: Label value that `write_dicom_seg` noted, if any.
    """

    number: int
    name: str
    code: Code | None = None
    noted: int | None = None

    @property
    def value(self) -> int:
        """Label value of the object by itself: the one noted, else the number."""
        return self.number if self.noted is None else self.noted


def segments_in(dataset: Dataset) -> tuple[Segment, ...]:
    """The segments that an object describes, without the background of label maps."""
    found = []
    for item in dataset.get("SegmentSequence") or []:
        number = int(item.SegmentNumber)
        if number == 0:
            continue
        noted = re.fullmatch(
            VALUE_TEXT.format(r"(\d{1,5})"), str(item.get("SegmentDescription") or "")
        )
        kind = next(iter(item.get("SegmentedPropertyTypeCodeSequence") or []), None)
        found.append(
            Segment(
                number=number,
                name=_full_name(item, kind) or f"segment {number}",
                code=_code(kind),
                noted=int(noted[1]) if noted else None,
            )
        )
    return tuple(found)


def _full_name(item: Dataset, kind: Dataset | None) -> str:
    """The segment label, behind those of its modifiers that it does not contain."""
    name = str(item.get("SegmentLabel") or "").strip()
    places = [item, *([] if kind is None else [kind])]
    modifiers = [
        str(code.get("CodeMeaning") or "")
        for place in places
        for code in place.get("SegmentedPropertyTypeModifierCodeSequence") or []
    ]
    said = set(name_key(name))
    unsaid = [text for text in modifiers if not set(name_key(text)) <= said]
    return " ".join([*unsaid, name]).strip()


def _code(kind: Dataset | None) -> Code | None:
    if kind is None or not kind.get("CodeValue"):
        return None
    scheme = str(kind.get("CodingSchemeDesignator") or "")
    if scheme.startswith(OWN_SCHEME):
        return None
    meaning = str(kind.get("CodeMeaning") or "")
    return Code(scheme=scheme, value=str(kind.CodeValue), meaning=meaning)


def name_key(name: str) -> tuple[str, ...]:
    """The words of a name for comparison: `Left_Kidney` and `left kidney` are equal."""
    return tuple(chunk.casefold() for chunk in chunks_of(name))


def codes_differ(one: Code | None, other: Code | None) -> bool:
    """Return whether two codes of one scheme name two concepts."""
    if one is None or other is None or one.scheme != other.scheme:
        return False
    return one.value != other.value


def is_same_structure(segment: Segment, label: LabelClass) -> bool:
    """Return whether a segment and a label agree in name, and not disagree in code."""
    same = name_key(segment.name) == name_key(label.name)
    return same and not codes_differ(segment.code, label.code)


def values_of(
    segments: Sequence[Segment], labels: Sequence[LabelClass], path: Path
) -> dict[int, int]:
    """Label value by segment number.

    Args:
        segments: What an object describes.
        labels: The labels to match them to; without any, the object's own values are taken.
        path: The object, for messages.

    Raises:
        ImageError: `unknown_segment`: a segment is not one of the labels, or its code is that of
            another concept; `same_segments`: two segments are one label.
    """
    if not labels:
        return {segment.number: segment.value for segment in segments}
    found: dict[int, int] = {}
    for segment in segments:
        fits = [label for label in labels if is_same_structure(segment, label)]
        if len(fits) != 1:
            raise _unknown(segment, fits, labels, path)
        if fits[0].value in found.values():
            raise ImageError(
                f"{path.name}: two segments are called {segment.name!r}; give each its own name",
                reason="same_segments",
                paths=[path],
            )
        found[segment.number] = fits[0].value
    return found


def _unknown(
    segment: Segment, fits: Sequence[LabelClass], labels: Sequence[LabelClass], path: Path
) -> ImageError:
    """The error for a segment that is not exactly one label."""
    coded = "" if segment.code is None else f" ({segment.code.scheme} {segment.code.value})"
    namesakes = [label for label in labels if name_key(label.name) == name_key(segment.name)]
    if fits:
        why = f"{len(fits)} labels have this name; give each its own"
    elif namesakes and namesakes[0].code is not None:
        code = namesakes[0].code
        why = f"the label of this name has the code {code.scheme} {code.value}; make them agree"
    else:
        known = ", ".join(label.name for label in labels[:12])
        why = f"no label has this name, known are {known}; rename it, or build the manifest anew"
    return ImageError(
        f"{path.name}: segment {segment.name!r}{coded}: {why}",
        reason="unknown_segment",
        paths=[path],
    )
