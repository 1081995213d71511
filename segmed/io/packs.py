"""Packs: files of many records each, which appear whole and never change.

A process writes packs of its own, so that any number of processes fill one folder without locks. A
pack ends with an index of its records and a checksum of that index; a file that was cut short is
recognised by its length and removed.
"""

from __future__ import annotations

import json
import logging
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.io.atomic import whole_file

log = logging.getLogger(__name__)

SUFFIX = ".pack"
MAGIC = b"segmedP1"
_TAIL = struct.Struct("<QQI8s")
"""Start and length of the index, its CRC-32, and the magic bytes."""


class DamagedRecordError(ValueError):
    """A record holds something else than what was written."""


@dataclass(frozen=True, slots=True)
class Record:
    """Place of one record.

    Attributes:
        pack: The file.
        start: First byte.
        length: Number of bytes.
        facts: JSON values that stand in the index, known without reading the record.
    """

    pack: Path
    start: int
    length: int
    facts: Any

    def read(self, spans: Iterable[tuple[int, int]]) -> list[bytes]:
        """Read parts of the record, the file being open meanwhile only.

        Args:
            spans: Start within the record and length of each part.

        Raises:
            OSError: The file is gone.
            DamagedRecordError: A part lies beyond the record.
        """
        parts = []
        with self.pack.open("rb", buffering=0) as stream:
            for start, length in spans:
                if start < 0 or start + length > self.length:
                    raise DamagedRecordError(f"{self.pack.name}: a part lies beyond its record")
                stream.seek(self.start + start)
                parts.append(_exactly(stream.read(length), length, self.pack))
        return parts


def _exactly(content: bytes | None, length: int, path: Path) -> bytes:
    if content is None or len(content) != length:
        raise DamagedRecordError(f"{path.name} ends too soon")
    return content


def write_pack(folder: Path, records: Sequence[tuple[str, bytes, Any]]) -> Path:
    """Write records into a new pack.

    Args:
        folder: Where packs are kept; made if missing.
        records: Key, content and facts of each.

    Returns:
        The file. Of equal keys in several packs the one of the latest name counts.
    """
    path = folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}{SUFFIX}"
    rows, start = [], 0
    with whole_file(path) as partial, partial.open("wb") as stream:
        for key, content, facts in records:
            stream.write(content)
            rows.append([key, start, len(content), facts])
            start += len(content)
        index = zlib.compress(json.dumps(rows).encode(), 1)
        stream.write(index)
        stream.write(_TAIL.pack(start, len(index), zlib.crc32(index), MAGIC))
    return path


def read_index(path: Path) -> dict[str, Record]:
    """The records of a pack.

    Raises:
        OSError: The file is gone.
        DamagedRecordError: It is not a whole pack.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - _TAIL.size))
        tail = stream.read(_TAIL.size)
        if len(tail) != _TAIL.size:
            raise DamagedRecordError(f"{path.name} is damaged or cut short")
        start, length, checksum, magic = _TAIL.unpack(tail)
        if magic != MAGIC or start + length + _TAIL.size != size:
            raise DamagedRecordError(f"{path.name} is damaged or cut short")
        stream.seek(start)
        index = stream.read(length)
    if zlib.crc32(index) != checksum:
        raise DamagedRecordError(f"the index of {path.name} is damaged")
    rows = json.loads(zlib.decompress(index))
    return {key: Record(path, begin, size, facts) for key, begin, size, facts in rows}


class PackIndex:
    """The records of all packs of a folder. Threads may use it at once.

    Args:
        folder: Where packs are kept; need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[str, Record] = {}
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def get(self, key: str) -> Record | None:
        """The record of a key among the packs seen so far."""
        return self._records.get(key)

    def refresh(self) -> None:
        """Read the indices of packs that were not seen before; damaged packs are removed."""
        with self._lock:
            if not self.folder.is_dir():
                self._records, self._seen = {}, set()
                return
            names = {path.name for path in self.folder.glob(f"[0-9]*{SUFFIX}")}
            if gone := self._seen - names:
                self._seen -= gone
                self._records = {
                    key: record
                    for key, record in self._records.items()
                    if record.pack.name not in gone
                }
            for name in sorted(names - self._seen):
                self._take(self.folder / name)

    def _take(self, path: Path) -> None:
        try:
            self._records |= read_index(path)
            self._seen.add(path.name)
        except FileNotFoundError:
            return  # another process has removed it
        except (DamagedRecordError, ValueError, zlib.error) as error:
            log.warning("prepared cases are damaged and made anew: %s", error)
            path.unlink(missing_ok=True)

    def drop(self, key: str, record: Record) -> None:
        """Forget a damaged record, unless a newer one has taken its place."""
        with self._lock:
            if self._records.get(key) is record:
                del self._records[key]
