"""Names of output files: writable everywhere, short enough, and comparable.

The one rule by which `predict` and `archive` name their results, and by which names that are not
UTF-8 appear in messages and tables.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal, cast, get_args

from segmed.errors import unknown_name
from segmed.io.digest import sha256_of_bytes

NameKind = Literal["source", "hash"]
"""`source`: relative path and name of the input; `hash`: a hash of its content or UID."""

LONGEST_NAME = 255
"""Bytes that a file name has at most on usual file systems."""

HASH_LENGTH = 8
"""Hex digits that distinguish shortened names."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_UTF8 = re.compile(r"[\ud800-\udfff]")


def check_names(names: str | None) -> NameKind | None:
    """Return a kind of names that is known.

    Raises:
        UsageError: It is neither `source` nor `hash`.
    """
    if names is not None and names not in get_args(NameKind):
        raise unknown_name("kind of output names", names, get_args(NameKind))
    return cast("NameKind | None", names)


def shown(path: Path | str) -> str:
    r"""A path or name as text for messages, JSON and tables; always valid Unicode in one line.

    Args:
        path: The path. Bytes that are not UTF-8 and control characters become `\xNN`.
    """
    text = _NOT_UTF8.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", str(path))
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def writable(name: str) -> str:
    """The name of an input as the name of its output.

    Args:
        name: One component of a path. Bytes that are not UTF-8 and control characters become `%NN`.
    """
    text = _NOT_UTF8.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", name)
    return _CONTROL.sub(lambda found: f"%{ord(found[0]):02X}", text)


def fitted(stem: str, suffix: str) -> str:
    """A file name of at most `LONGEST_NAME` bytes; a longer one is cut and ends with its hash.

    Args:
        stem: The name without suffix.
        suffix: Such as `.nii.gz`.
    """
    room = LONGEST_NAME - len(suffix.encode())
    content = stem.encode()
    if len(content) <= room:
        return stem + suffix
    digest = sha256_of_bytes(content)[:HASH_LENGTH]
    kept = content[: room - HASH_LENGTH - 1].decode("utf-8", "ignore")
    return f"{kept}-{digest}{suffix}"


def mirrored(folder: Path, case: str) -> str:
    """The place of an output relative to the output folder, without suffix.

    Args:
        folder: Folder of the input, relative to the folder that was given.
        case: Name of the case.
    """
    return str(PurePosixPath(*map(writable, folder.parts), writable(case)))


def with_suffix(place: str, suffix: str) -> str:
    """A place from `mirrored` with the suffix of the output, its last part short enough."""
    path = PurePosixPath(place)
    return str(path.with_name(fitted(path.name, suffix)))


def folded(name: str) -> str:
    """A name as file systems compare it that ignore upper case and composition of characters."""
    return unicodedata.normalize("NFC", name).casefold()


def is_same_file(path: Path, others: Iterable[Path]) -> bool:
    """True if a path leads to the same file as one of the others, by name or by a link."""
    return path.exists() and any(other.exists() and path.samefile(other) for other in others)


def absolute(path: Path) -> str:
    """A path from the root, without links resolved; two spellings of one path are equal."""
    return os.path.normpath(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`
