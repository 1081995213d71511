"""SHA-256 digests of files, streams, bytes, texts and JSON values: one function for each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import IO, Any


def sha256_of_stream(stream: IO[bytes]) -> str:
    """Hex SHA-256 of what is left of an open file."""
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # any binary


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return sha256_of_stream(stream)


def sha256_of_bytes(content: bytes | memoryview) -> str:
    """Hex SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_parts(*parts: bytes | memoryview) -> str:
    """Hex SHA-256 of several parts in a row."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def sha256_of_text(text: str, errors: str = "strict") -> str:
    """Hex SHA-256 of a text as UTF-8.

    Args:
        text: The text.
        errors: Treatment of what UTF-8 cannot write, as for `str.encode`.
    """
    return hashlib.sha256(text.encode("utf-8", errors)).hexdigest()


def sha256_of_json(content: Any) -> str:
    """Hex SHA-256 of JSON values, whose keys are sorted."""
    return sha256_of_text(json.dumps(content, sort_keys=True))
