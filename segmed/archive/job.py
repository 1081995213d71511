"""One segmentation of an archive run: the request, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmed.archive.study import Study
from segmed.errors import ImageError
from segmed.outcomes import classify


@dataclass(frozen=True)
class Job:
    """Request for an engine.

    Attributes:
        key: The study's key in the ledger.
        study: The study, its files on this machine.
        output: Where the segmentation shall appear.
    """

    key: str
    study: Study
    output: Path


@dataclass(frozen=True)
class Result:
    """Result of a job.

    Attributes:
        key: The study's key in the ledger.
        reason: Code of the refusal or failure, or empty.
        message: One line about it, or empty.
        refused: Refused for its data; else failed for its surroundings.
        output_sha256: Hex digest of the file written; empty if there is none.
        seconds: From reading to the finished file, waiting excluded, in s.
        measures: What was measured on the way.
        files: The files at fault, if they are known.
    """

    key: str
    reason: str = ""
    message: str = ""
    refused: bool = False
    output_sha256: str = ""
    seconds: float = 0.0
    measures: dict[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def failure_result(
    key: str, error: Exception, files: Sequence[Path], seconds: float = 0.0
) -> Result:
    """The result of a job that ended with an error.

    The outcome is that of `segmed.outcomes.classify`.
    File names are taken out of messages, since they may name patients.

    Args:
        key: The job's key.
        error: What was raised.
        files: The job's input files.
        seconds: Time spent, in s.
    """
    why = classify(error, shows_text=False)
    paths = error.paths if isinstance(error, ImageError) else ()
    return Result(
        key,
        why.code,
        without_names(why.message, files),
        why.status == "refused",
        seconds=seconds,
        files=tuple(path for path in map(Path, paths) if path in files),
    )


def without_names(message: str, files: Sequence[Path]) -> str:
    """A message in one line with paths and names of the input files replaced by their numbers."""
    for number, path in enumerate(files, 1):
        stand_in = f"file {number} of {len(files)}"
        for text in (str(path), path.name):
            message = message.replace(text, stand_in)
    for folder in sorted({str(path.parent) for path in files}, key=len, reverse=True):
        message = message.replace(folder, "its folder")
    return " ".join(message.split())
