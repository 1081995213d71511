"""One segmentation of an archive run: what is asked, and what came of it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmed.archive.study import Study
from segmed.errors import (
    AccessDeniedError,
    ImageError,
    ModelError,
    RefusedRequestError,
    ServiceError,
    UsageError,
    is_out_of_memory,
)

OF_THE_SURROUNDINGS = frozenset({"out_of_memory", "unreadable"})
"""Reasons of an image that lie in the machine or the disk: the next run tries again."""


@dataclass(frozen=True)
class Job:
    """What is asked of an engine.

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
    """What came of a job.

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


ACCESS_DENIED = "access_denied"
"""Reason of a study whose server refuses the caller; the run ends with it."""

SERVICE = "service"
"""Reason of a study whose server did not answer, after all tries."""

SERVICE_REFUSES = "service_refuses"
"""Reason of a study that its server refuses to send or keep; the other studies go on."""


def failure_result(
    key: str, error: Exception, files: Sequence[Path], seconds: float = 0.0
) -> Result:
    """The result of a job that ended with an error.

    Errors of the data and the model's contract refuse the study; errors of the surroundings do not.
    File names are taken out of messages, since they may name patients.

    Args:
        key: The job's key.
        error: What was raised.
        files: The job's input files.
        seconds: Time spent, in s.
    """
    faulty: tuple[Path, ...] = ()
    if isinstance(error, ImageError):
        reason, message = error.reason, str(error)
        refused = reason not in OF_THE_SURROUNDINGS
        faulty = tuple(path for path in map(Path, error.paths) if path in files)
    elif isinstance(error, ModelError | UsageError):
        reason, refused, message = "model_refuses", True, str(error)
    elif isinstance(error, AccessDeniedError):
        reason, refused, message = ACCESS_DENIED, False, str(error)
    elif isinstance(error, RefusedRequestError):
        reason, refused, message = SERVICE_REFUSES, False, str(error)
    elif isinstance(error, ServiceError):
        reason, refused, message = SERVICE, False, str(error)
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        reason, refused, message = "disk_full", False, "no space left; free some and run again"
    elif is_out_of_memory(error):
        reason, refused, message = "out_of_memory", False, "more memory was needed than there is"
    elif isinstance(error, OSError):
        reason, refused, message = "system", False, error.strerror or type(error).__name__
    else:
        reason, refused, message = "unexpected", False, f"{type(error).__name__} {_line(error)}"
    message = without_names(message, files)
    return Result(key, reason, message, refused, seconds=seconds, files=faulty)


def without_names(message: str, files: Sequence[Path]) -> str:
    """A message in one line with paths and names of the input files replaced by their numbers."""
    for number, path in enumerate(files, 1):
        stand_in = f"file {number} of {len(files)}"
        for text in (str(path), path.name):
            message = message.replace(text, stand_in)
    for folder in sorted({str(path.parent) for path in files}, key=len, reverse=True):
        message = message.replace(folder, "its folder")
    return " ".join(message.split())


def _line(error: Exception) -> str:
    """Where an unexpected error was raised: module and line, never its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"at {trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
