"""Folders for temporary files; those of killed processes are removed."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path

from segmed.io.dicom.uid import short_hash


def scratch_folder() -> Path:
    """A new folder on this machine's temporary disk; its name says whose it is."""
    return Path(tempfile.mkdtemp(prefix=f"{_ours()}{os.getpid()}-"))


def remove_scratch_leftovers() -> int:
    """Remove the folders of processes of this machine that are no more; returns how many.

    Fetched images and names of files are personal: they do not stay behind a kill.
    """
    left = [
        path
        for path in Path(tempfile.gettempdir()).glob(f"{_ours()}*")
        if not is_alive(path.name.removeprefix(_ours()).split("-", maxsplit=1)[0])
    ]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)


def is_alive(number: str) -> bool:
    """Return whether a process of this number, written in digits, runs on this machine."""
    return number.isdigit() and Path(f"/proc/{number}").exists()


def _ours() -> str:
    """Containers that share a disk count their processes apart, and have names of their own."""
    return f"segmed-scratch-{short_hash(platform.node())}-"
