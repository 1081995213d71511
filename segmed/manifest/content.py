"""What files hold, as digests: of one file, of a folder, of a set of cases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from segmed.manifest.schema import Case, Manifest

BLOCK_BYTES = 1 << 20
"""Bytes read at once."""


def is_hidden(path: Path) -> bool:
    """Whether a file is hidden, such as the `._*` doubles that macOS leaves in archives."""
    return path.name.startswith(".")


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's sorted file digests, as lower-case hex.

    Args:
        path: A file, or a folder (a DICOM series) whose hidden files do not count.

    Raises:
        FileNotFoundError: There is nothing at `path`, or something without an end (a pipe, a
            device).
    """
    if path.is_dir():
        inside = (file for file in path.iterdir() if not is_hidden(file))
        parts = sorted(digest(file) for file in inside if file.is_file() or file.is_dir())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if path.exists() and not path.is_file():
        raise FileNotFoundError(f"{path.name} is a pipe or a device, not a file")
    running = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            running.update(block)
    return running.hexdigest()


def with_digests(manifest: Manifest) -> Manifest:
    """The manifest with the SHA-256 of every file of every case filled in."""

    def filled(case: Case) -> Case:
        files = [*case.image, *([case.label] if case.label else [])]
        return case.model_copy(
            update={"sha256": {name: digest(manifest.root / name) for name in files}}
        )

    return manifest.model_copy(
        update={
            "training": tuple(filled(case) for case in manifest.training),
            "test": tuple(filled(case) for case in manifest.test),
        }
    )


def case_hash(manifest: Manifest, case: Case) -> str:
    """SHA-256 of what a case's files hold, whatever their names and places.

    Stored digests are trusted; files without one are read.
    """
    known = case.sha256
    names = [*case.image, *([case.label] if case.label else [])]
    digests = [known.get(name) or digest(manifest.root / name) for name in names]
    parts = {"image": digests[: len(case.image)], "label": digests[len(case.image) :]}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def data_hash(manifest: Manifest, cases: Iterable[Case]) -> str:
    """SHA-256 over labels, channels and the content of some cases, in whatever order they come.

    Args:
        manifest: Where the cases come from.
        cases: The cases that count, such as the training cases of one fold.

    Returns:
        64 hex digits; equal when the same files, ids and meanings were used.
    """
    parts = {
        "labels": [[label.name, label.value] for label in manifest.labels],
        "channels": [[channel.name, channel.modality] for channel in manifest.channels],
        "cases": sorted([case.id, case_hash(manifest, case)] for case in cases),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
