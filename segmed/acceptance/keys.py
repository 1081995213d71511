"""Keys of evidence: the site's, that signs, and the study's, that hashes the cases of all sites."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from segmed.errors import UsageError
from segmed.io.digest import sha256_of_bytes
from segmed.io.salt import pseudonym, read_salt
from segmed.io.secret_file import secret_in

SITE_KEY_VARIABLE = "SEGMED_SITE_KEY"
STUDY_KEY_VARIABLE = "SEGMED_STUDY_KEY"
"""Environment variables that name the files of the two keys."""

ID_DIGITS = 16
"""Hex digits by which a key is named; they do not give it away."""


def site_key_path() -> Path:
    """Return the path of the site's key: `SEGMED_SITE_KEY`, or `~/.config/segmed/site.key`."""
    named = os.environ.get(SITE_KEY_VARIABLE)
    return Path(named or Path.home() / ".config" / "segmed" / "site.key")


def study_key_path() -> Path:
    """Return the path of the study's key: `SEGMED_STUDY_KEY`, or `~/.config/segmed/study.key`."""
    named = os.environ.get(STUDY_KEY_VARIABLE)
    return Path(named or Path.home() / ".config" / "segmed" / "study.key")


def read_site_key(path: Path) -> Ed25519PrivateKey:
    """The key that signs; a new one is drawn where there is none, readable to its owner alone.

    Raises:
        UsageError: Others may read the file, or it is no Ed25519 key.
    """
    content = secret_in(path, "site key", _drawn)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"the site key {path} is no private key in PEM form") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"the site key {path} is of another kind than Ed25519")
    return key


def _drawn() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_study_key(path: Path) -> bytes:
    """The key that the sites of a study share; a new one is drawn where there is none.

    Raises:
        UsageError: Others may read the file, or it is too short.
    """
    return read_salt(path, "study key")


def study_key_id(key: bytes) -> str:
    """Name of a study's key, which distinguishes the records of two studies."""
    return pseudonym(key, "segmed study key")[:ID_DIGITS]


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The public part of a site's key, 32 bytes."""
    return key.public_key().public_bytes_raw()


def site_id(public: bytes) -> str:
    """Name of a site: begin of the digest of its public key."""
    return sha256_of_bytes(public)[:ID_DIGITS]


def is_signed_by(public: bytes, signature: bytes, content: bytes) -> bool:
    """Return whether a signature is that of a public key on some bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True
