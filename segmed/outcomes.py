"""Outcomes of work on one image: `done`, `refused` or `failed`; one classifier of errors for all.

`refused`: the image cannot be segmented correctly, for a known reason, and another attempt would
end the same way. `failed`: the machine, the disk, a server or the program is at fault, and another
attempt may succeed. Used by `predict`, archive runs, `evaluate` and served models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segmed.errors import (
    AccessDeniedError,
    ImageError,
    ModelError,
    PackageError,
    RefusedRequestError,
    SegmedError,
    ServiceError,
    UsageError,
    WeightsError,
    is_device_fault,
    is_out_of_memory,
)
from segmed.full_disk import is_full_disk

Status = Literal["done", "refused", "failed"]

BadStatus = Literal["refused", "failed"]

ACCESS_DENIED = "access_denied"
"""Reason of a study whose server refuses the caller; the run ends with it."""

SERVICE = "service"
"""Reason of a study whose server did not answer, after all attempts."""

SERVICE_REFUSES = "service_refuses"
"""Reason of a study that its server refuses to send or keep; the other studies go on."""

OUT_OF_MEMORY = "out_of_memory"

GPU_FAULT = "gpu_fault"
"""Reason of a study during which the GPU failed; its process can do no more."""

GPU_FAULT_TEXT = "the GPU failed, run again; if it goes on, see `nvidia-smi` and the system's log"

TRANSIENT = frozenset({OUT_OF_MEMORY, "unreadable"})
"""Reasons of an `ImageError` that are due to the machine or the disk."""

RULES: tuple[tuple[type[SegmedError], BadStatus, str], ...] = (
    (AccessDeniedError, "failed", ACCESS_DENIED),
    (RefusedRequestError, "failed", SERVICE_REFUSES),
    (ServiceError, "failed", SERVICE),
    (PackageError, "failed", "damaged_package"),
    (WeightsError, "failed", "damaged_package"),
    (ModelError, "refused", "model_refuses"),
    (UsageError, "refused", "model_refuses"),
    (SegmedError, "refused", "invalid_input"),
)
"""Status and reason by class of error, the first that fits; an `ImageError` has its own reason."""


@dataclass(frozen=True)
class FailureReason:
    """Status and reason of work on an image that gave no result.

    Attributes:
        status: `refused` or `failed`.
        code: Short stable reason, such as `truncated` or `out_of_memory`.
        message: One line for people.
    """

    status: BadStatus
    code: str
    message: str

    @property
    def reason(self) -> str:
        """Code and message in one line."""
        return f"{self.code}: {self.message}"


def classify(error: Exception, *, shows_text: bool = True) -> FailureReason:
    """Status, reason and message of work that ended with an error.

    Args:
        error: What was raised.
        shows_text: Include the text of errors that are not of this package, which may name files;
            False where the names of files may name patients.
    """
    if isinstance(error, ImageError):
        status: BadStatus = "failed" if error.reason in TRANSIENT else "refused"
        return FailureReason(status, error.reason, _one_line(error))
    for kind, status, code in RULES:
        if isinstance(error, kind):
            return FailureReason(status, code, _one_line(error))
    if is_full_disk(error):
        return FailureReason("failed", "disk_full", "no space left; free some and run again")
    if is_out_of_memory(error):
        return FailureReason("failed", OUT_OF_MEMORY, "more memory was needed than there is")
    if is_device_fault(error):
        return FailureReason("failed", GPU_FAULT, f"{GPU_FAULT_TEXT} ({_first_words(error)})")
    if isinstance(error, OSError):
        brief = error.strerror or type(error).__name__
        return FailureReason("failed", "system", _one_line(error) if shows_text else brief)
    name = type(error).__name__
    message = f"{name}: {_one_line(error)}" if shows_text else f"{name} {_place_of(error)}".strip()
    return FailureReason("failed", "unexpected", message)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _first_words(error: Exception) -> str:
    """The first line of a message of PyTorch, which names no file."""
    return (str(error).splitlines() or [""])[0][:120]


def _place_of(error: Exception) -> str:
    """Module and line that raised an error, without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"at {trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
