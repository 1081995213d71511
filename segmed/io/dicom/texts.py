"""Texts of source images in derived objects: their bytes and character set are kept as they are.

Headers of real files state wrong character sets, or several at once, or misspelt ones.
Decoding and encoding again would change a patient's name, and an object of another name is filed
under another patient. So the writer works with placeholders, and the source's bytes are put back.

Source:
    DICOM PS3.5, 6.1.2 (character repertoires); PS3.3, C.12.1.1.2 (Specific Character Set).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydicom.charset import convert_encodings, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PersonName

TEXT_VRS = frozenset({"PN", "LO", "SH", "ST", "LT", "UC", "UT"})
CHARACTER_SET = Tag("SpecificCharacterSet")
UTF8 = "ISO_IR 192"


@dataclass(frozen=True)
class SourceTexts:
    """Text elements of a source image, byte for byte.

    Attributes:
        values: Bytes of each text element at the top of the data set.
        character_set: Bytes of SpecificCharacterSet; None where the image states none.
    """

    values: Mapping[BaseTag, bytes] = field(repr=False)
    character_set: bytes | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> SourceTexts:
        """Read the texts of a data set that has just been read, before any of them is decoded."""
        values = {}
        for tag in list(dataset.keys()):
            raw = dataset.get_item(tag)
            if isinstance(raw, RawDataElement) and raw.value and _vr_of(raw) in TEXT_VRS:
                values[tag] = bytes(raw.value)
        return cls(values, _stated_set(dataset))

    @property
    def is_ascii(self) -> bool:
        """Return whether every text means the same in every character set."""
        return all(value.isascii() and b"\x1b" not in value for value in self.values.values())

    def replace_by_stand_ins(self, dataset: Dataset) -> None:
        """Replace the texts of a data set by ASCII, and leave out its character set.

        Args:
            dataset: The data set; a writer of derived objects copies from it.
        """
        for tag, value in self.values.items():
            dataset[tag].value = value.decode("ascii", "replace").replace("�", "?").rstrip(" \0")
        if CHARACTER_SET in dataset:
            del dataset[CHARACTER_SET]

    def restore(self, result: Dataset, source: Dataset) -> None:
        """Put the source's bytes into a derived object, and its character set.

        Args:
            result: The derived object; its own texts have been fitted by `fitted`.
            source: The data set with placeholders that it was made from. Elements without the
                placeholder are the writer's own.
        """
        for tag, value in self.values.items():
            if tag in result and tag in source and result[tag].value == source[tag].value:
                put_raw(result, tag, value, character_set=self.character_set or b"")
        if self._needs_utf8(result):
            result.SpecificCharacterSet = UTF8
        elif self.character_set is not None:
            stated = self.character_set.decode("ascii", "replace").rstrip(" \0")
            result.SpecificCharacterSet = stated.split("\\") if "\\" in stated else stated

    def fitted(self, text: str, stand_in: str) -> str:
        """A text of ours in characters that the object can encode beside the source's.

        Args:
            text: The text.
            stand_in: ASCII in its place, where nothing of it can be kept.

        Returns:
            The text itself if the source's texts are ASCII (the object is then in UTF-8) or if the
            source's character set has its characters; else without accents; else the placeholder.
        """
        text = text.replace("\\", "/")  # a backslash would part it into several values
        if text.isascii() or self.is_ascii or self._can_encode(text):
            return text
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
        plain = re.sub(r"\s+", " ", plain).strip()
        return plain if len(plain) >= len(text) / 2 else stand_in

    def _can_encode(self, text: str) -> bool:
        stated = (self.character_set or b"").decode("ascii", "replace").strip(" \0")
        encoding = python_encoding.get(stated) if "\\" not in stated else None
        if not encoding or encoding == "iso8859":  # the default repertoire is ASCII
            return False
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            return False
        return True

    def _needs_utf8(self, result: Dataset) -> bool:
        """Return whether our texts go beyond ASCII while the source's are all ASCII."""
        return self.is_ascii and any(
            not str(element.value).isascii()
            for element in result.iterall()
            if element.VR in TEXT_VRS
        )


def put_raw(dataset: Dataset, tag: BaseTag, value: bytes, *, character_set: bytes = b"") -> None:
    """Set a text element to bytes that are written as they are.

    Args:
        dataset: The data set.
        tag: A text element.
        value: Its bytes.
        character_set: SpecificCharacterSet that the data set is written with, as stored.
    """
    vr = _named_vr(tag)
    if vr != "PN":
        dataset[tag] = DataElement(tag, vr, value)
        return
    # A name gives its bytes back if it is asked in the encodings that it was made with.
    encodings = convert_encodings(character_set.decode("ascii", "replace").split("\\"))
    dataset[tag] = DataElement(tag, vr, PersonName(value, encodings=encodings))


def _stated_set(dataset: Dataset) -> bytes | None:
    """SpecificCharacterSet as it is in the file; pydicom decodes it while it reads."""
    element = dataset.get_item(CHARACTER_SET)
    if element is None:
        return None
    if isinstance(element.value, bytes):
        return element.value
    several = [element.value] if isinstance(element.value, str) else list(element.value or ())
    return "\\".join(map(str, several)).encode("ascii", "replace")


def _vr_of(raw: RawDataElement) -> str:
    return str(raw.VR) if raw.VR else _named_vr(raw.tag)


def _named_vr(tag: BaseTag) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"
