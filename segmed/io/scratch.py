"""Folders for temporary files of users' data; those of killed processes are removed."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segmed.io.dicom.uid import short_hash
from segmed.io.process_mark import is_running, process_mark


def scratch_folder() -> Path:
    """A new folder on this machine's temporary disk; its name begins with the process's mark."""
    return Path(tempfile.mkdtemp(prefix=f"{_ours()}{process_mark()}-"))


@contextmanager
def scratch_space() -> Iterator[Path]:
    """A scratch folder that is removed at the end of the block."""
    folder = scratch_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_scratch_leftovers() -> int:
    """Remove the scratch folders of processes of this machine that have ended.

    Fetched images, voxels and names of files are personal: they must not stay after a kill.

    Returns:
        The number of folders removed.
    """
    left = [
        path
        for path in Path(tempfile.gettempdir()).glob(f"{_ours()}*")
        if not is_running(owner_of(path.name.removeprefix(_ours())))
    ]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)


def owner_of(name: str) -> str:
    """Mark of the process that a folder's name begins with."""
    return name.split("-", maxsplit=1)[0]


def _ours() -> str:
    """Containers that share a disk count their processes apart, and have names of their own."""
    return f"segmed-scratch-{short_hash(platform.node())}-"
