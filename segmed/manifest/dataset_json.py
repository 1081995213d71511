"""A folder's `dataset.json`: the forms in which the field writes it, read to plain values.

The Decathlon, nnU-Net and MONAI write lists of files, tables of labels and of channels in several
spellings. Keys are taken in upper or lower case; a table may be a list; a path may start with `./`,
be absolute, or differ from its file by `.nii` for `.nii.gz`. All other faults are one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmed.errors import ManifestError
from segmed.manifest.label_table import LabelTable, label_table, whole
from segmed.manifest.strict_json import kind_in_words, read_object

NAME = "dataset.json"

ENDINGS = ((".nii.gz", ".nii"), (".nii", ".nii.gz"))
"""An ending that a list names, and the one that the file may have instead."""

IMAGE_KEYS, LABEL_KEYS = ("image", "images"), ("label", "labels")


@dataclass(frozen=True)
class CaseEntry:
    """One entry of a list of cases.

    Attributes:
        image: Image files relative to the folder, at least one.
        label: Label files; none for a case without a reference.
        fold: The fold that the list states.
    """

    image: tuple[str, ...]
    label: tuple[str, ...] = ()
    fold: int | None = None


@dataclass(frozen=True)
class Description:
    """The content of a `dataset.json`.

    Attributes:
        folder: Folder of the file; paths start from it.
        content: Its values by key in lower case.
        remarks: Differences between list and files that were resolved, in one line each.
    """

    folder: Path
    content: dict[str, Any]
    remarks: list[str] = field(default_factory=list)

    def fault(self, message: str) -> ManifestError:
        """An error about this file."""
        return ManifestError(f"{self.folder / NAME}{message}")

    def text(self, *keys: str) -> str:
        """The first of some values that is there, as text."""
        return next((str(self.content[key]) for key in keys if self.content.get(key)), "")

    def rows(self, key: str, *, needs_label: bool) -> list[CaseEntry]:
        """The entries of one list of cases; none if there is no such list.

        Raises:
            ManifestError: It is not a list, or an entry names no files, or one that does not exist.
        """
        listed = self.content.get(key)
        if listed is None:
            return []
        if isinstance(listed, dict):
            listed = list(listed.values())
        if not isinstance(listed, list):
            raise self.fault(f": {key!r} is {kind_in_words(listed)}, expected a list of cases")
        return [
            self._row(f"{key}[{number}]", entry, needs_label) for number, entry in enumerate(listed)
        ]

    def _row(self, place: str, entry: Any, needs_label: bool) -> CaseEntry:
        if isinstance(entry, str) and not needs_label:
            entry = {"image": entry}
        if not isinstance(entry, dict):
            raise self.fault(
                f": {place} is {kind_in_words(entry)}, expected an object with image and label"
            )
        entry = {str(key).lower(): value for key, value in entry.items()}
        image = self._files(f"{place}.image", _first(entry, IMAGE_KEYS))
        label = self._files(f"{place}.label", _first(entry, LABEL_KEYS))
        if not image or (needs_label and not label):
            lacking = "image" if not image else "label"
            raise self.fault(f": {place} has no {lacking}; its keys are {sorted(entry)}")
        fold = entry.get("fold")
        return CaseEntry(image, label, fold if isinstance(fold, int) and fold >= 0 else None)

    def _files(self, place: str, value: Any) -> tuple[str, ...]:
        """File names of an entry, relative to the folder."""
        names = value if isinstance(value, list) else [] if value is None else [value]
        for name in names:
            if not isinstance(name, str) or not name or "\0" in name:
                raise self.fault(f": {place} is {value!r}, expected a file name or a list of them")
        return tuple(self._found(place, name) for name in names)

    def _found(self, place: str, name: str) -> str:
        for other in self._spellings(name):
            if (self.folder / other).exists():
                if other.endswith(".nii") != name.endswith(".nii"):
                    self.remarks.append(f"{place} names {name}; {Path(other).name} is taken for it")
                return Path(os.path.relpath(self.folder / other, self.folder)).as_posix()
        raise self.fault(f" names {name}, which does not exist")

    @staticmethod
    def _spellings(name: str) -> Iterator[str]:
        for one in dict.fromkeys((name, name.replace("\\", "/"))):
            yield one
            for ending, instead in ENDINGS:
                if one.lower().endswith(ending) and not one.lower().endswith("." + ending):
                    yield one[: -len(ending)] + instead

    def channels(self, *keys: str) -> list[str] | None:
        """Names of the channels in order; None if no such table is there.

        Raises:
            ManifestError: There is no valid table, or its keys are not the numbers from 0.
        """
        key = next((key for key in keys if self.content.get(key)), None)
        if key is None:
            return None
        table = self.content[key]
        if isinstance(table, str):
            return [table]
        if isinstance(table, list):
            table = dict(enumerate(table))
        if not isinstance(table, dict):
            raise self.fault(
                f": {key!r} is {kind_in_words(table)}, expected names by channel number"
            )
        by_number = {whole(number): name for number, name in table.items()}
        if sorted(by_number, key=str) != sorted(range(len(table)), key=str):
            expected = f"0 to {len(table) - 1}"
            raise self.fault(f": {key!r} has the keys {list(table)}, expected {expected}")
        return [str(by_number[number]) for number in range(len(table))]

    def labels(self) -> LabelTable | None:
        """The structures, background among them; None if none are named.

        Raises:
            ManifestError: There is no valid table, a value is not whole, or two names share
                one value.
        """
        return label_table(self.content, self.fault)


def load_description(folder: Path) -> Description:
    """The content of a folder's `dataset.json`.

    Raises:
        ManifestError: It is missing, is not a JSON object, or has one key in two spellings.
    """
    path = folder / NAME
    try:
        content = read_object(path, "data list")
    except FileNotFoundError:
        raise ManifestError(f"{folder} has no {NAME}: choose another format") from None
    lowered = {key.lower(): value for key, value in content.items()}
    if len(lowered) < len(content):
        raise ManifestError(f"{path} has one key in upper and lower case: {sorted(content)}")
    return Description(folder, lowered)


def is_nnunet(description: Description) -> bool:
    """True for nnU-Net's form (version 2), False for the Decathlon's and MONAI's."""
    return "channel_names" in description.content or "file_ending" in description.content


def _first(entry: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((entry[key] for key in keys if entry.get(key) is not None), None)
