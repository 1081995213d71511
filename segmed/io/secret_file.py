"""Secrets in files that their owner alone may read, drawn at their first use."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from segmed.errors import UsageError
from segmed.io.atomic import PRIVATE

MAX_SECRET_BYTES = 1 << 16


def secret_in(path: Path, name: str, draw: Callable[[], bytes]) -> bytes:
    """The secret of a file; a new one is drawn and written if the file does not exist.

    Args:
        path: The file.
        name: Name of the secret in messages.
        draw: Draws a new secret.

    Raises:
        UsageError: Others may read the file.
    """
    try:
        return _content(path, name)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = draw()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError:  # another process was first
        return _content(path, name)
    with os.fdopen(handle, "wb") as stream:
        stream.write(secret)
    return secret


def _content(path: Path, name: str) -> bytes:
    with path.open("rb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        content = stream.read(MAX_SECRET_BYTES)
    if mode & 0o077:
        raise UsageError(f"others may read the {name} {path}: `chmod 600 {path}`")
    return content
