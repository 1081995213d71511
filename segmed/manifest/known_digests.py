"""Digests of images that were taken before, trusted for as long as their files stay untouched."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from segmed.io.atomic import write_whole
from segmed.io.digest import sha256_of_json, sha256_of_text
from segmed.io.parts import files_of
from segmed.manifest.content import image_digest

log = logging.getLogger(__name__)

DIGESTS = "digests.json"
"""File beside prepared cases with the digests of images that were not touched since."""

FORM = 1
"""Version of the file's form; a file of another one counts for nothing."""

SETTLED_NS = 2_000_000_000
"""A file that was changed less than this before it was read may have been changed again within the
same tick of its clock: its digest is used, but not trusted at the next start."""

Stamp = tuple[str, int, int, int, int]
"""Name, bytes, times of the last change of content and of entry (ns), and number of the file."""


class KnownDigests:
    """Digests by path, kept in one file. Threads may use it at once.

    A digest is trusted while name, size, inode and both times of change of every file of the image
    are those at which it was taken: the time of an entry's change cannot be set back by a program.
    Paths are kept as hashes.

    Args:
        path: File that keeps the digests between processes; need not exist. None keeps nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known = {} if path is None else _read(path)
        self._fresh: dict[str, tuple[str, str, int]] = {}
        self._brief: dict[str, tuple[str, str, int]] = {}
        self._lock = threading.Lock()

    def digest(self, path: Path) -> str:
        """`image_digest` of an image, computed again only if its files were touched.

        Raises:
            FileNotFoundError: There is nothing at `path`, or something without an end.
        """
        name = sha256_of_text(str(path.absolute()), "surrogateescape")[:32]
        known = self._fresh.get(name) or self._brief.get(name) or self._known.get(name)
        if known is not None and known[0] == _stamp_of(path, known[2]):
            return known[1]
        begun = time.time_ns()
        stamps = _stamps(_files(path))
        taken = (_hashed(stamps), image_digest(path), _count(path, stamps))
        is_settled = all(max(stamp[2:4]) + SETTLED_NS < begun for stamp in stamps)
        with self._lock:
            (self._fresh if is_settled else self._brief)[name] = taken
        return taken[1]

    def save(self) -> None:
        """Add what was taken since to the file; a folder that cannot be written is left alone."""
        with self._lock:
            if not self._fresh or self.path is None:
                return
            self._known, self._fresh = {**_read(self.path), **self._known, **self._fresh}, {}
            content = json.dumps({"form": FORM, "digests": self._known})
        try:
            write_whole(self.path, content)
        except PermissionError as error:
            log.debug("digests are not kept: %s", error)


def _read(path: Path) -> dict[str, tuple[str, str, int]]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["form"] != FORM:
            return {}
        rows = content["digests"].items()
        return {str(name): (str(stamp), str(value), int(n)) for name, (stamp, value, n) in rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # nothing is lost but time


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*")) if path.is_dir() else list(files_of(path))


def _count(path: Path, stamps: list[Stamp]) -> int:
    """Files of an image; 0 for a folder, whose files are listed again each time."""
    return 0 if path.is_dir() else len(stamps)


def _stamp_of(path: Path, count: int) -> str:
    """Stamp of an image that consisted of so many files.

    A single file that is untouched has the header that says so, and need not be opened.
    """
    try:
        return _hashed(_stamps([path] if count == 1 else _files(path)))
    except FileNotFoundError:
        return ""


def _stamps(files: Iterable[Path]) -> list[Stamp]:
    stats = ((file.name, file.stat()) for file in files)
    return [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats]


def _hashed(stamps: list[Stamp]) -> str:
    return sha256_of_json(stamps)[:32]
