"""Checkpoints that are whole or absent, and loaded without pickle's powers."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch

from segmed.errors import TrainingError
from segmed.full_disk import is_full_disk
from segmed.io.atomic import ASIDE, PARTIAL, whole_file

SCHEMA_VERSION = 1
"""Version of the checkpoint's form."""

LAST = "last.ckpt"
"""Name of the checkpoint that a training continues from."""

BEST = "best.ckpt"
"""Name of the checkpoint of the epoch of best validation Dice."""

_UNREADABLE = (OSError, RuntimeError, EOFError, UnpicklingError, BadZipFile, zlib.error, ValueError,
               KeyError, IndexError, AttributeError, TypeError, struct.error)  # fmt: skip
"""Exceptions of the zip reader and of `torch.load` for files that are damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """The whole state of a training between two steps.

    Attributes:
        run: What may not change on resume: architecture, fold, seed, plan and data hash.
        step: Steps done.
        elapsed_s: Seconds spent.
        budget: The budget it was trained under, as a record.
        is_finished: Whether that budget was spent, or patience lost.
        model: State of the network.
        optimizer: State of the optimiser.
        averaged: Averaged weights; empty without averaging.
        history: One record an epoch.
        tally: Running sums of the epoch under way.
        scaler: State of the loss scale of float16; empty in other arithmetic.
    """

    run: dict[str, Any]
    step: int
    elapsed_s: float
    budget: dict[str, Any]
    is_finished: bool
    model: dict[str, Any]
    optimizer: dict[str, Any]
    averaged: dict[str, Any]
    history: list[dict[str, Any]]
    tally: dict[str, float]
    scaler: dict[str, Any] = field(default_factory=dict)


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Write a file beside its place, flush it to the disk and rename it.

    Args:
        path: Path of the file.
        write: Writes the content to a binary stream.

    Returns:
        `path`.

    Raises:
        TrainingError: The disk is full or the folder cannot be written; the old file is kept.
    """
    try:
        with whole_file(path) as draft, draft.open("wb") as stream:
            write(stream)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        words = "no space left on the disk" if is_full_disk(error) else str(error)
        detail = " ".join(words.split())[:200]
        raise TrainingError(
            f"cannot write {path}: {detail}; the last checkpoint is intact; free some space "
            "and continue with --resume"
        ) from error
    return path


def remove_leftovers(folder: Path) -> None:
    """Remove partial files and packages of killed writers."""
    for beside in [*folder.glob(f"{PARTIAL}*"), *folder.glob(f".package.*{ASIDE}")]:
        if beside.is_file():
            beside.unlink(missing_ok=True)
        else:
            shutil.rmtree(beside, ignore_errors=True)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> Path:
    """Write a checkpoint; it appears whole or not at all."""
    content = {"schema_version": SCHEMA_VERSION, **vars(checkpoint)}
    return write_whole(path, lambda stream: torch.save(content, stream))


def keep_as(path: Path, place: Path) -> Path:
    """Copy a checkpoint that was written just now; the copy appears whole or not at all."""
    with path.open("rb") as written:
        return write_whole(place, lambda stream: shutil.copyfileobj(written, stream))


def load_checkpoint(path: Path, *, run: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint and check that it belongs to this run.

    Args:
        path: A file that `save_checkpoint` wrote.
        run: What the run at hand is; must equal what the checkpoint says.

    Returns:
        The checkpoint, tensors on the CPU.

    Raises:
        TrainingError: The file is unreadable, damaged, of another schema, or of another run; the
            message says how to go on.
    """
    content = _content_of(path)
    version = content.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise TrainingError(
            f"{path} has checkpoint schema {version!r}, this segmed reads {SCHEMA_VERSION}; "
            "start without --resume"
        )
    try:
        checkpoint = Checkpoint(**content)
    except TypeError as error:
        raise damaged(path, "it lacks a part, or has one too many") from error
    for key, value in run.items():
        if checkpoint.run.get(key) != value:
            raise TrainingError(
                f"{path} belongs to another run: its {key} is {checkpoint.run.get(key)!r}, now it "
                f"is {value!r}; start without --resume, or in another folder"
            )
    return checkpoint


def _content_of(path: Path) -> dict[str, Any]:
    """The stored values; their checksums are verified, which `torch.load` alone does not do."""
    try:
        if not is_zipfile(path):
            raise damaged(path, f"{path.stat().st_size} bytes, not a whole checkpoint")
        with ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise damaged(path, "a checksum differs")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except TrainingError:
        raise
    except _UNREADABLE as error:
        raise damaged(path, " ".join(str(error).split())[:120]) from error
    if not isinstance(content, dict):
        raise damaged(path, f"it contains a {type(content).__name__}")
    return content


def damaged(path: Path, why: str) -> TrainingError:
    """The error for a checkpoint that cannot be continued, with the ways to continue."""
    best = path.with_name(BEST)
    copy = f"copy {best.name} over it, " if best.is_file() and best.name != path.name else ""
    return TrainingError(
        f"the checkpoint {path} is damaged ({why}): {copy}restore it from a backup, or start "
        "without --resume"
    )


def write_history(history: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write one JSON line an epoch."""
    text = "".join(json.dumps(record) + "\n" for record in history)
    return write_whole(path, lambda stream: stream.write(text.encode()))
