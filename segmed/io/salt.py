"""The salt: a secret of this site, without which its pseudonyms cannot be made or reversed."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from segmed.errors import UsageError
from segmed.io.secret_file import secret_in

SALT_VARIABLE = "SEGMED_SALT_FILE"
"""Environment variable that names the file of the salt."""

SALT_BYTES = 32


def salt_path() -> Path:
    """Return the path of the salt: `SEGMED_SALT_FILE`, or `~/.config/segmed/salt`."""
    return Path(os.environ.get(SALT_VARIABLE) or Path.home() / ".config" / "segmed" / "salt")


def read_salt(path: Path, name: str = "salt") -> bytes:
    """The salt of a file; a new one is drawn where there is none, readable to its owner alone.

    Args:
        path: The file.
        name: Name of the secret in messages.

    Raises:
        UsageError: Others may read the file, or it is too short.
    """
    content = secret_in(path, name, lambda: secrets.token_bytes(SALT_BYTES))
    if len(content) < SALT_BYTES:
        raise UsageError(
            f"the {name} {path} has {len(content)} bytes, it needs {SALT_BYTES}: remove it, and a "
            "new one is drawn (pseudonyms will differ from those made before)"
        )
    return content


def pseudonym(salt: bytes, text: str) -> str:
    """Hex digits that replace a text: always the same with one salt, unguessable without it.

    Source:
        HMAC with SHA-256, RFC 2104.
    """
    return hmac.new(salt, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
