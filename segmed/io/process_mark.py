"""Mark of a process, for the names of its files: number, start and boot, since numbers recur."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

PROCESSES = Path("/proc")
"""Files about processes on Linux."""

ENDED = ("Z", "X", "x")
"""States of processes that do nothing any more, in `/proc/PID/stat`."""


def process_mark() -> str:
    """Return `PID.START.BOOT` of this process, which no other process of any machine has.

    The system gives a process number again after the end of the process, in containers often to
    the same program. START is the time of the start in the system's own unit; BOOT differs between
    machines and between boots of a machine.
    """
    number = os.getpid()
    return f"{number}.{_start_of(number)}.{_boot()}"


def is_running(mark: str) -> bool:
    """Return whether the process of a mark runs on this machine.

    Args:
        mark: As `process_mark` gives it. Earlier commits wrote the process number alone: such a
            mark also fits a later process of that number.
    """
    number, *rest = mark.split(".")
    if not number.isdigit():
        return False
    start = _start_of(int(number))
    if not rest:
        return start is not None
    return start is not None and rest == [start, _boot()]


def _start_of(number: int) -> str | None:
    """Time of a process's start, in the system's unit; None if no such process runs."""
    if not PROCESSES.is_dir():
        return _start_by_psutil(number)
    try:
        stat = (PROCESSES / str(number) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may contain blanks and brackets
    return None if fields[0] in ENDED else fields[19]


def _start_by_psutil(number: int) -> str | None:
    try:
        process = psutil.Process(number)
        is_ended = process.status() == psutil.STATUS_ZOMBIE
        return None if is_ended else str(round(process.create_time() * 1000))
    except psutil.Error:
        return None


def _boot() -> str:
    """Identifier of the boot of this machine, shortened; `0` on systems without one."""
    try:
        found = (PROCESSES / "sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return "0"
    return found[:8]
