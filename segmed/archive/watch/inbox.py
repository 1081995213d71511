"""Folder of the instances that a DICOM node received: each whole, flushed before it is confirmed.

```
inbox/STUDY/SERIES/INSTANCE.dcm     names are hashes of identifiers: patient and study, series, ...
inbox/.drafts/                      instances that are being written
inbox/.settled/STUDY                state of a study about which all is done
```
"""

from __future__ import annotations

import io
import shutil
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from segmed.archive.folder_source import FolderSource
from segmed.archive.study import NotImage, Study, StudySource
from segmed.archive.watch.arrival import Arrival, SeriesSeen
from segmed.errors import ImageError
from segmed.io.atomic import flush, whole_file, write_whole
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.patient import PATIENT_TAGS, patient_key
from segmed.io.dicom.uid import short_hash
from segmed.io.digest import sha256_of_text

DRAFTS, SETTLED = ".drafts", ".settled"
SUFFIX = ".dcm"
OTHER_INSTANCE = "other_instance"
"""Reason of an instance that is not the one that its sender announced."""

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, EOFError, struct.error,
              InvalidDicomError)  # fmt: skip
"""Errors of pydicom on bytes that are no instance."""

TAGS = [
    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", *PATIENT_TAGS,
    "Modality", "SeriesDescription", "BodyPartExamined", "SpecificCharacterSet",
]  # fmt: skip


@dataclass
class _Series:
    """One series in memory."""

    seen: SeriesSeen
    names: set[str] = field(default_factory=set)


@dataclass
class _Arriving:
    """One study in memory."""

    first: float
    last: float
    series: dict[str, _Series] = field(default_factory=dict)


class Inbox:
    """The received instances of a DICOM node, as a feed of a watch.

    Args:
        root: The folder; made if absent, readable to its owner alone.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._open: dict[str, _Arriving] = {}
        self._busy: Counter[str] = Counter()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(root / DRAFTS, ignore_errors=True)  # of a process that was killed
        (root / DRAFTS).mkdir()
        (root / SETTLED).mkdir(exist_ok=True)
        flush(root)
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and not folder.name.startswith("."):
                self._reopen(folder.name)

    def store(self, content: bytes, instance: str = "") -> bool:
        """Keep one instance; it is on disk, whole, when this returns.

        An instance that comes again with the same bytes changes nothing. One that comes with other
        bytes replaces the earlier one.

        Args:
            content: A DICOM file.
            instance: SOPInstanceUID that the sender announced; empty if it did not.

        Returns:
            True if it was new or changed.

        Raises:
            ImageError: Its identifiers cannot be read, or it is another instance.
        """
        header = header_of(content)
        if instance and str(header.SOPInstanceUID) != instance:
            raise ImageError("the data set is of another instance", reason=OTHER_INSTANCE)
        series = short_hash(str(header.SeriesInstanceUID))
        study = sha256_of_text(f"{patient_key(header)} {header.StudyInstanceUID}")[:16]
        name = f"{short_hash(str(header.SOPInstanceUID))}{SUFFIX}"
        with self._writing(study):
            path = self._folder(study, series) / name
            is_known = path.is_file() and path.read_bytes() == content
            if not is_known:
                with whole_file(path, private=True, drafts=self.root / DRAFTS) as draft:
                    draft.write_bytes(content)
        with self._lock:
            arriving = self._open.get(study) or (None if is_known else self._reopen(study))
            if arriving is not None:  # also a copy says that the sender is still at work
                arriving.last = time.time()
                known = arriving.series.setdefault(series, _Series(_seen(header)))
                known.names.add(name)
        return not is_known

    def arrivals(self) -> list[Arrival]:
        """Studies that were not settled in their present state."""
        now = time.time()
        with self._lock:
            for arriving in self._open.values():  # a clock may be set back
                arriving.last = min(arriving.last, now)
            return [
                Arrival(
                    ref=study,
                    name=study,
                    series=tuple(
                        replace(one.seen, instances=len(one.names))
                        for one in arriving.series.values()
                    ),
                    first=arriving.first,
                    last=arriving.last,
                )
                for study, arriving in self._open.items()
            ]

    def state_of(self, ref: str) -> str:
        """Hash of the names, sizes and times of a study's files."""
        return _state(self.root / ref)

    def units(self, ref: str, source: StudySource) -> Iterator[Study | NotImage]:
        """Units of work of a study: series that are audited, or what rules choose of them."""
        assert isinstance(source, FolderSource)  # a run on an inbox has no other
        yield from replace(source, within=(self.root / ref,)).studies()

    def settle(self, ref: str, state: str) -> None:
        """Note that all is done about a state of a study, also for the next start."""
        with self._lock:
            if self.state_of(ref) == state:
                write_whole(self.root / SETTLED / ref, state, private=True)
                self._open.pop(ref, None)

    def remove_settled(self, older_than_s: float) -> int:
        """Remove the images of studies that are settled since so long; returns how many studies."""
        removed = 0
        for mark in sorted((self.root / SETTLED).iterdir()):
            with self._lock:
                is_old = time.time() - mark.stat().st_mtime > older_than_s
                if is_old and mark.name not in self._open and not self._busy[mark.name]:
                    shutil.rmtree(self.root / mark.name, ignore_errors=True)
                    mark.unlink()
                    removed += 1
        return removed

    def _reopen(self, study: str) -> _Arriving | None:
        """Read a study from its files, unless it is settled in this state."""
        if _is_settled(self.root / study):
            return None
        paths = sorted((self.root / study).rglob(f"*{SUFFIX}"))
        if not paths:
            return None
        times = [path.stat().st_mtime for path in paths]
        arriving = self._open[study] = _Arriving(min(times), max(times))
        for path in paths:
            known, seen = arriving.series.get(path.parent.name), SeriesSeen()
            if known is None:
                with suppress(ImageError):  # damaged on the disk since: intake refuses it by name
                    seen = _seen(header_of(path))
                known = arriving.series[path.parent.name] = _Series(seen)
            known.names.add(path.name)
        return arriving

    @contextmanager
    def _writing(self, study: str) -> Iterator[None]:
        """Within the block, a study is not removed."""
        with self._lock:
            self._busy[study] += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy[study] -= 1

    def _folder(self, study: str, series: str) -> Path:
        """Folder of a series; a new one is on disk, too."""
        folder = self.root / study / series
        for path in (folder.parent, folder):
            if not path.is_dir():
                path.mkdir(mode=0o700, exist_ok=True)
                flush(path.parent)
        return folder


def _state(folder: Path) -> str:
    """Hash of the names, sizes and times of the files of a study."""
    lines = []
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        stat = path.stat()
        lines.append(f"{path.parent.name}/{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return sha256_of_text("\n".join(lines))


def _is_settled(folder: Path) -> bool:
    """Return whether all is done about the present state of a study."""
    mark = folder.parent / SETTLED / folder.name
    return mark.is_file() and mark.read_text(encoding="utf-8") == _state(folder)


@tolerant_pydicom()
def header_of(source: bytes | Path) -> Dataset:
    """Identifiers and description of an instance, without its pixels.

    Raises:
        ImageError: It is not DICOM, or has no UID of instance, series or study.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=TAGS)
        uids = [str(header.get(name) or "").strip() for name in TAGS[:3]]
    except UNREADABLE as error:
        raise ImageError("the instance is not DICOM", reason="unreadable") from error
    if not all(uids):
        raise ImageError("the instance has no UID of instance, series or study", reason="no_uid")
    return header


@tolerant_pydicom()
def _seen(header: Dataset) -> SeriesSeen:
    return SeriesSeen(
        modality=str(header.get("Modality") or ""),
        description=str(header.get("SeriesDescription") or ""),
        body_part=str(header.get("BodyPartExamined") or ""),
    )
