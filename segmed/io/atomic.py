"""Files and folders that appear whole or not at all: the one writer of all files that are kept."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE = 0o600
"""Mode of files that may name patients."""

PARTIAL = ".partial-"
"""Begin of the names of files and folders that are being written."""

ASIDE = ".old"
"""End of the names of folders that a new one is just replacing."""

LONGEST_END = 96
"""Bytes of a file name that its temporary name ends with."""


@contextmanager
def whole_file(path: Path, *, private: bool = False, drafts: Path | None = None) -> Iterator[Path]:
    """A path beside `path` to write to; on success it is flushed to disk and renamed to `path`.

    The temporary name begins with a dot and ends with the suffixes of `path`, so that writers which
    choose their format by suffix do so rightly. On any error it is removed and `path` stays as it
    was.

    Args:
        path: Where the file shall appear; its folder is made if missing.
        private: Make it readable to its owner alone.
        drafts: Folder on the same disk to write in, where the folder of `path` may be read
            meanwhile.

    Yields:
        The path to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent if drafts is None else drafts
    partial = folder / f"{PARTIAL}{secrets.token_hex(6)}-{_end_of(path.name)}"
    try:
        if private:
            partial.touch(mode=PRIVATE)
        yield partial
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes, *, private: bool = False) -> Path:
    """Write text (as UTF-8) or bytes to a file, see `whole_file`.

    Args:
        path: The file.
        content: Its content.
        private: Make it readable to its owner alone.

    Returns:
        `path`.
    """
    with whole_file(path, private=private) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def whole_folder(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A new folder beside `path` to write to; on success it is flushed and renamed to `path`.

    Args:
        path: Where the folder shall appear; the folder above is made if missing.
        replaces: Replace a folder that exists. It is put aside first and removed at the end, and
            comes back if the rename fails.

    Yields:
        The folder to write to.

    Raises:
        OSError: A folder with content exists and is not to be replaced.
    """
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(6)}")
    partial.mkdir(parents=True)
    try:
        yield partial
        flush_tree(partial)
        if replaces and path.exists():
            _swap(partial, path)
        else:
            partial.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=ASIDE, dir=path.parent))
    path.rename(aside / path.name)
    try:
        new.rename(path)
    except OSError:
        (aside / path.name).rename(path)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _end_of(name: str) -> str:
    """The last bytes of a file name: a temporary name must not be longer than names may be."""
    return os.fsdecode(os.fsencode(name)[-LONGEST_END:]).encode("utf-8", "ignore").decode()


def flush(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(path: Path) -> None:
    """Ask the system to put a file, or a folder with all that it contains, on the disk."""
    for inside in path.rglob("*") if path.is_dir() else ():
        flush(inside)
    flush(path)
