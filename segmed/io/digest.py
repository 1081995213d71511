"""The digest of bytes: one function for manifests, caches, archives and identifiers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO


def sha256_of_stream(stream: IO[bytes]) -> str:
    """Hex SHA-256 of what is left of an open file."""
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # any binary


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return sha256_of_stream(stream)
