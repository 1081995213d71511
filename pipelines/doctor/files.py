"""Files: free space on each disk, permissions, and the ledger."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.doctor.finding import Finding
from pipelines.tracking.outbox import outboxes
from pipelines.tracking.runs import OUTBOX_FOLDER
from segmed.archive import archive_status
from segmed.archive.ledger.file import LEDGER_FILE
from segmed.archive.run import MIN_FREE_BYTES
from segmed.errors import SegmedError

GB = 1e9
LOW_DISK_BYTES = 5e9
"""Free space below which a warning is given."""

MIN_FREE_INODES = 10_000


def look_at_files(folder: Path, out_dir: Path | None, archive: Path | None) -> Iterator[Finding]:
    """Working folder, temporary folder, outputs, ledger and archive."""
    yield from look_at_place("working folder", folder)
    yield from look_at_place("temporary folder", Path(tempfile.gettempdir()))
    yield from owed(folder)
    if out_dir is not None:
        yield from look_at_place("output folder", out_dir)
        yield from look_at_ledger(out_dir)
    if archive is not None:
        yield look_at_archive(archive)
    yield from secrets_in(os.environ)


def look_at_place(what: str, folder: Path) -> Iterator[Finding]:
    """Return whether there is room in a folder and we may write there."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        repair = f"chown it to user {os.getuid()}, or choose another folder"
        yield Finding(what, f"{place} cannot be written by user {os.getuid()}", "problem", repair)
    yield room(what, place)


def room(what: str, place: Path) -> Finding:
    """Report the free disk space of a folder."""
    free = shutil.disk_usage(place).free
    inodes = os.statvfs(place)
    fact = f"{free / GB:.1f} GB free on the disk of {place}"
    if free < MIN_FREE_BYTES:
        repair = f"free some: below {MIN_FREE_BYTES >> 20} MiB archive runs end as disk_full"
        return Finding(what, fact, "problem", repair)
    if inodes.f_files and inodes.f_favail < MIN_FREE_INODES:
        fact += f", but only {inodes.f_favail} files more"
        return Finding(what, fact, "problem", "remove small files; the disk is out of inodes")
    if free < LOW_DISK_BYTES:
        return Finding(what, fact, "warning", "free some before a training or an archive run")
    return Finding(what, fact)


def look_at_ledger(out_dir: Path) -> Iterator[Finding]:
    """The ledger: whether it can be read, and who may read it."""
    path = out_dir / LEDGER_FILE
    if not path.exists():
        yield Finding("ledger", f"none in {out_dir} yet")
        return
    try:
        counts = archive_status(out_dir).counts
    except SegmedError as error:
        yield Finding("ledger", str(error), "problem", "restore it from a backup, or mend that")
        return
    stated = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    if counts["failed"] or counts["refused"]:
        repair = f"see `segmed archive status {out_dir}`"
        yield Finding("ledger", stated, "warning", repair)
    else:
        yield Finding("ledger", stated or "empty")
    yield from open_to_others("ledger", path)


def look_at_archive(archive: Path) -> Finding:
    """Return whether the archive can be read."""
    try:
        with os.scandir(archive) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        repair = f"mount it, or let user {os.getuid()} read it"
        return Finding("archive", f"{archive}: {error.strerror}", "problem", repair)
    if is_empty:
        return Finding("archive", f"{archive} is empty", "warning", "is it mounted?")
    return Finding("archive", f"{archive} can be read")


def owed(folder: Path) -> Iterator[Finding]:
    """Report records that wait for an unreachable tracking server."""
    kept = [box for box in outboxes(folder / OUTBOX_FOLDER) if not box.is_empty()]
    if kept:
        repair = "run `segmed model sync` (the nightly run does it, too)"
        yield Finding("kept values", f"of {len(kept)} runs, not delivered", "warning", repair)


def open_to_others(what: str, path: Path) -> Iterator[Finding]:
    """A warning where any user of the machine may read a file."""
    mode = path.stat().st_mode
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        fact = f"{path} can be {'written' if mode & stat.S_IWOTH else 'read'} by every user"
        yield Finding(what, fact, "warning", f"chmod o= {path}")


def secrets_in(environment: os._Environ[str]) -> Iterator[Finding]:
    """A warning for each secret file that the environment names and every user may read."""
    for name, value in sorted(environment.items()):
        if name.endswith(("PASSWORD_FILE", "SECRET_KEY_FILE", "AUTH_STRING_FILE")):
            with contextlib.suppress(OSError):
                yield from open_to_others("secret", Path(value))
