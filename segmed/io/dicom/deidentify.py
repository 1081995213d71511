"""De-identify DICOM objects: the Basic Application Level Confidentiality Profile, with pseudonyms.

What is done to which attribute is taken from the tables of `dicom-anonymizer`. Unlike there,
nested items are treated like the object itself, and identifiers become functions of the old ones
and a salt: images and segmentations that are treated apart still refer to each other.

Source:
    DICOM PS3.15 annex E, table E.1-1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
from dicomanonymizer import simpledicomanonymizer as tables
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue

from segmed.errors import ImageError
from segmed.io.atomic import whole_file
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.read import decoding
from segmed.io.dicom.uid import uid_from
from segmed.io.head import looks_like_dicom
from segmed.io.salt import pseudonym

EDITION = "dicomfields_2026c"
"""Edition of the standard whose table is used."""

NAME_LENGTH = 16
"""Hex digits of a pseudonym that names a person or a file."""

Action = Callable[[Dataset, tuple[int, int]], None]


def deidentify_file(path: Path, out_dir: Path, salt: bytes) -> Path:
    """De-identify one DICOM file.

    Args:
        path: The file.
        out_dir: Where the copy goes, as `SERIES/INSTANCE.dcm`, both pseudonyms.
        salt: The site's secret, from `read_salt`.

    Returns:
        The copy.

    Raises:
        ImageError: `not_dicom`, `burned_in` (pixels show text, which is not removed), or
            `undecodable`.
    """
    with path.open("rb") as stream:
        if not looks_like_dicom(stream.read(132)):
            raise ImageError(f"{path.name}: no DICOM file", reason="not_dicom", paths=[path])
    with decoding(path), tolerant_pydicom():
        dataset = pydicom.dcmread(path)
        series, instance = str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)
        if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
            raise ImageError(
                f"{path.name}: its pixels show text about the patient, which stays; blank it by a "
                "tool made for that first",
                reason="burned_in",
                paths=[path],
            )
        deidentify(dataset, salt)
    place = out_dir / pseudonym(salt, series)[:NAME_LENGTH]
    target = place / f"{pseudonym(salt, instance)[:NAME_LENGTH]}.dcm"
    with whole_file(target) as draft, tolerant_pydicom():
        dataset.save_as(draft)
    return target


def deidentify(dataset: FileDataset, salt: bytes) -> None:
    """De-identify an object in place.

    Patient ID and name become a pseudonym, unique identifiers become others; pixels stay as they
    are.

    Args:
        dataset: The object with its file meta information.
        salt: The site's secret.
    """
    person = pseudonym(salt, f"{dataset.get('IssuerOfPatientID', '')}|{dataset.get('PatientID')}")
    dataset.preamble = bytes(128)
    _treat(dataset, salt)
    dataset.PatientID = dataset.PatientName = person[:NAME_LENGTH]
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"segmed, PS3.15 basic profile, {EDITION[-5:]}"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.DeidentificationMethodCodeSequence = [code]
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for name in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle",
                 "ReceivingApplicationEntityTitle", "PrivateInformation",
                 "PrivateInformationCreatorUID"):  # fmt: skip
        if name in dataset.file_meta:
            del dataset.file_meta[name]


@cache
def _rules() -> tuple[dict[tuple[int, int], Action], list[tuple[tuple[int, ...], Action]]]:
    """Actions for single attributes and for ranges of them (values and masks)."""
    actions: dict[tuple[int, ...], Action] = tables.initialize_actions(EDITION)
    single = {(tag[0], tag[1]): action for tag, action in actions.items() if len(tag) == 2}
    return single, [(tag, action) for tag, action in actions.items() if len(tag) > 2]


def _action_for(tag: Any) -> Action | None:
    single, ranges = _rules()
    found = single.get((tag.group, tag.element))
    if found is not None:
        return found
    for (group, element, group_mask, element_mask), action in ranges:
        if tag.group & group_mask == group & group_mask and (
            tag.element & element_mask == element & element_mask
        ):
            return action
    return None


def _treat(dataset: Dataset, salt: bytes) -> None:
    """Treat every attribute of a data set and of its items."""
    for tag in list(dataset.keys()):
        if tag.is_private:
            del dataset[tag]
            continue
        action = _action_for(tag)
        if action in {tables.replace_UID, tables.delete_or_empty_or_replace_UID}:
            _replace_identifiers(dataset, tag, salt)
        elif action is not None:
            action(dataset, (tag.group, tag.element))
        if tag in dataset:
            for item in _items(dataset[tag]):
                _treat(item, salt)


def _items(element: Any) -> Iterator[Dataset]:
    if element.VR == "SQ":
        yield from element.value or ()


def _replace_identifiers(dataset: Dataset, tag: Any, salt: bytes) -> None:
    """Other identifiers for these; of a sequence of references, those within are replaced."""
    element = dataset[tag]
    if element.VR == "SQ" or not element.value:
        return
    old = element.value if isinstance(element.value, MultiValue) else [element.value]
    new = [uid_from("deidentified", pseudonym(salt, str(uid))) for uid in old]
    element.value = new if len(new) > 1 else new[0]
