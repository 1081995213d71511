"""One hostile input: how it is made, who reads it, and by what name it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Make = Callable[[Path], Any]


@dataclass(frozen=True)
class Hostile:
    """One input that somebody made to do harm.

    Attributes:
        name: What it is, in a few words; unique.
        kind: Who reads it: `image`, `label`, `package`, `manifest`, `plan`, `rules`, `address`.
        reason: The reason code of an image's refusal, or a piece of the message of another's.
        make: Writes it into an empty folder; gives what the reader is handed.
    """

    name: str
    kind: str
    reason: str
    make: Make


def written(name: str, content: bytes | Callable[[], bytes]) -> Make:
    """A file of that name and content."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content() if callable(content) else content)
        return path

    return make
