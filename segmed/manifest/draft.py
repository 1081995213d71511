"""Draft of a manifest as read from a source layout, before folds and digests are added."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from segmed.errors import ManifestError
from segmed.formats import has_image_suffix, stem_of
from segmed.io.stack import is_stack
from segmed.manifest.content import is_hidden
from segmed.manifest.schema import Case, StoredLabel
from segmed.structures import Channel, LabelClass


@dataclass(frozen=True)
class Draft:
    """A manifest without folds, groups and digests.

    Attributes:
        name: Name of the set.
        labels: Structures, background excluded.
        channels: Input channels, in order.
        training: Cases with labels, their paths relative to the source folder.
        test: Cases kept out.
        licence: As stated by the source.
        source: Where the images come from, as stated by the source.
        groups: Patient of each case id, where the source gives it.
        remarks: What was kept, dropped or taken for something else, one line each.
        stored_labels: The structures of the label files, where they differ from `labels`.
        ignore_value: Value of unannotated voxels, where the source states it.
    """

    name: str
    labels: tuple[LabelClass, ...]
    channels: tuple[Channel, ...]
    training: tuple[Case, ...]
    test: tuple[Case, ...] = ()
    licence: str = ""
    source: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    stored_labels: tuple[StoredLabel, ...] = ()
    ignore_value: int | None = None


def image_files(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name; hidden ones such as `._*` are passed over."""
    found = (path for path in folder.iterdir() if path.is_file() and not is_hidden(path))
    return sorted(path for path in found if has_image_suffix(path))


def images_in(folder: Path, *, stacks: bool = True) -> list[Path]:
    """The image files directly in a folder; without any, its subfolders that are stacks of slices.

    Args:
        folder: The folder.
        stacks: Also look for stacks (see `segmed.io.stack`).
    """
    files = image_files(folder)
    if files or not stacks:
        return files
    return [path for path in sorted(folder.iterdir()) if not is_hidden(path) and is_stack(path)]


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by name without suffix.

    Raises:
        ManifestError: Two files differ in their suffix only.
    """
    found: dict[str, Path] = {}
    for path in files:
        stem = stem_of(path)
        if stem in found:
            raise ManifestError(
                f"{found[stem].name} and {path.name} in {path.parent} would be one case: "
                "keep one of them"
            )
        found[stem] = path
    return found


def case_id(text: str) -> str:
    """A case id that is safe as a file name, made from a file's stem."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-")
    return safe[:128] or "case"


def group_of(case: str, pattern: str | None, known: dict[str, str]) -> str:
    """The group (patient) of a case.

    Args:
        case: The case id.
        pattern: Regular expression searched for in the id: its first parenthesis, or the whole
            match, is the group. None takes the groups of the source, else each case is its own.
        known: Groups that the source gives, by case id.

    Raises:
        ManifestError: The pattern is not a regular expression, or does not occur in the id.
    """
    if pattern is None:
        return known.get(case, case)
    try:
        match = re.search(pattern, case)
    except re.error as error:
        raise ManifestError(
            f"grouping pattern {pattern!r} is not a regular expression: {error}"
        ) from error
    if match is None:
        raise ManifestError(
            f"grouping pattern {pattern!r} does not occur in case id {case!r}: "
            "every case needs a group"
        )
    return match.group(1) if match.re.groups else match.group(0)


def relative(path: Path, root: Path) -> str:
    """A path below a folder, with forward slashes.

    Raises:
        ManifestError: Its bytes are not UTF-8, which a manifest is written in.
    """
    name = path.relative_to(root).as_posix()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise ManifestError(
            f"the bytes of the file name {shown!r} are not UTF-8, which a manifest is written in: "
            "rename the file"
        ) from error
    return name
