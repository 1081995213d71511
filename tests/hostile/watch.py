"""Files, connections and memory of a call, as recorded by the interpreter."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PLACES = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
}
"""Audit events that change the file system: which arguments are a place, and the open folder that
it is relative to."""


@dataclass
class Watched:
    """Recorded events.

    Attributes:
        written: Places that were opened for writing, made, moved or removed.
        called: Addresses that were connected to, and names that were looked up.
        programs: Programs that were started.
    """

    written: list[Path] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)

    def outside(self, *allowed: Path) -> list[Path]:
        """Places that lie in none of the folders, without bytecode, which Python itself writes."""
        return [
            place
            for place in self.written
            if not any(place.is_relative_to(folder) for folder in allowed)
            and not place.is_relative_to("/dev")
            and place.parent.name != "__pycache__"
        ]


_watching: list[Watched] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    seen = _watching[-1]
    if event == "open":
        path, _, flags = arguments
        if flags & WRITING and not isinstance(path, int) and path is not None:
            seen.written.append(_place(path))
    elif event in PLACES:
        for place, folder in PLACES[event]:
            seen.written.append(_place(arguments[place], folder and arguments[folder]))
    elif event in {"socket.connect", "socket.sendto"}:
        seen.called.append(str(arguments[1]))
    elif event == "socket.getaddrinfo":
        seen.called.append(str(arguments[0]))
    elif event in {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"}:
        seen.programs.append(str(arguments[0]))


def _place(path: Any, folder: int | None = None) -> Path:
    """Target of a path, with links followed as the system follows them."""
    if isinstance(path, int):
        return Path(os.path.realpath(f"/proc/self/fd/{path}"))
    start = f"/proc/self/fd/{folder}" if folder is not None and folder >= 0 else "."
    return Path(os.path.realpath(Path(start, os.fsdecode(path))))


sys.addaudithook(_hook)


@contextmanager
def watching() -> Iterator[Watched]:
    """Watch this process, all threads, within the block."""
    seen = Watched()
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def forget_peak() -> None:
    """Let the highest memory of this process begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_bytes() -> int:
    """The highest resident memory of this process since then, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell VmHWM")
