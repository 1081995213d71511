"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE = 0o600
"""Mode of files that may name patients."""

LONGEST_END = 96
"""Bytes of a file name that its temporary name ends with."""


@contextmanager
def whole_file(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; on success it is flushed to disk and renamed to `path`.

    The temporary name begins with a dot and ends with the suffixes of `path`, so that writers which
    choose their format by suffix do so rightly. On any error it is removed and `path` stays as it
    was.

    Args:
        path: Where the file shall appear; its folder is made if missing.
        private: Make it readable to its owner alone.

    Yields:
        The path to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{secrets.token_hex(6)}-{_end_of(path.name)}")
    try:
        if private:
            partial.touch(mode=PRIVATE)
        yield partial
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


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
