"""Small raster files of one origin, decoded one after the other by one process.

Starting a process takes longer than decoding a small file. A file of a batch that is refused, or
during which the process ends or exceeds its time, is read again in a process of its own, which
names it; another process continues with the files behind it. Answers are matched by number and
path.

The files of a batch share the memory of the process and its limits of address space and time. A
file that corrupts memory without ending the process, or makes the decoder run its code, could
change the answers to files behind it. All files of a batch are therefore of one origin, which is
trusted or distrusted as a whole: the cases of one manifest, or one of the two folders of an
evaluation. Images for a model (`predict`, archives, served requests) never share a process.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segmed.formats import RASTER_FORMATS, RASTER_SUFFIXES
from segmed.io.head import sniff
from segmed.io.isolated import load_together
from segmed.io.source import Loaded

BATCH = 64
"""Files of a batch, at most."""

LARGEST_BYTES = 4 << 20
"""Bytes of a file in a batch, at most; larger ones are read alone."""

BATCH_BYTES = 8 << 20
"""Bytes of the files of one worker's cases together, at most."""

DECODED_BYTES = 32 << 20
"""Bytes of decoded pixels with which a process ends; the rest of its batch is for the next one."""

RasterFile = tuple[Path, bool]
"""A file, and whether it is read as a label."""


def small_raster_bytes(path: Path) -> int | None:
    """Size in bytes of a file that is named as a raster image and small; None for any other."""
    try:
        if path.suffix.lower() not in RASTER_SUFFIXES or not path.is_file():
            return None
        size = path.stat().st_size
    except OSError:
        return None
    return size if size <= LARGEST_BYTES else None


def is_small_raster(path: Path) -> bool:
    """Return whether a file is a small raster image by name, size and content."""
    try:
        return small_raster_bytes(path) is not None and sniff(path).format in RASTER_FORMATS
    except OSError:
        return False


class ReadAhead:
    """Decodes small raster files in the order in which they are taken. For one thread.

    Args:
        files: Files of one origin in this order; those that are not small raster images are left
            out.
    """

    def __init__(self, files: Iterable[RasterFile]) -> None:
        self._left = dict.fromkeys(one for one in files if is_small_raster(one[0]))
        self._read: dict[RasterFile, Loaded] = {}

    def take(self, path: Path, *, is_label: bool) -> Loaded | None:
        """The content of a file, once.

        Args:
            path: The file.
            is_label: Stored values instead of float32.

        Returns:
            The content; None for a file that must be read alone.
        """
        wished = path, is_label
        if wished in self._left:
            self._decode_from(wished)
        return self._read.pop(wished, None)

    def _decode_from(self, wished: RasterFile) -> None:
        """Decode a file and those behind it; files before it are no longer expected."""
        self._read.clear()
        for passed in list(self._left):
            if passed == wished:
                break
            del self._left[passed]
        batch = list(self._left)[:BATCH]
        if len(batch) == 1:  # nothing to share a process with
            self._left.clear()
            return
        found = load_together(batch, decoded_bytes=DECODED_BYTES)
        for one, loaded in zip(batch, found, strict=False):  # those that were reached
            del self._left[one]
            if loaded is not None:
                self._read[one] = loaded
