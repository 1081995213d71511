"""Error classes of the library, one for each kind that a caller may handle.

```
SegmedError
├── UsageError      (ValueError)    an option, a name or a budget that cannot work
├── ManifestError   (ValueError)    a manifest that is not one, or that contradicts its files
├── ImageError      (ValueError)    a file that cannot be read *correctly*; has a reason code
│   └── GeometryError               a grid that is missing, absurd, or not the expected one
├── ModelError      (ValueError)    a network that cannot be built, or an input it cannot take
├── WeightsError    (ValueError)    a weight file that does not fit the network
├── PackageError    (ValueError)    a model package that is damaged or of another schema
├── MetricError     (ValueError)    a score that would be meaningless
├── TrainingError   (RuntimeError)  a training that cannot go on: NaN, out of memory
└── ServiceError    (ConnectionError)  a server that does not answer or refuses
    ├── RefusedRequestError         a final answer to one request: asking again changes nothing
    └── AccessDeniedError           a refusal of this caller, for any request
```

Every message is one line: what was wrong, what was got, what would do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class SegmedError(Exception):
    """Root of everything that `segmed` raises on purpose.

    Its text shows line ends and other control characters, which names of hostile files may contain,
    as escapes: no file can write a line of its own into a log, or act on a terminal.
    """

    def __str__(self) -> str:
        """The message."""
        text = super().__str__()
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class UsageError(SegmedError, ValueError):
    """An option, a name or a budget that cannot work."""


class ManifestError(SegmedError, ValueError):
    """A manifest that is not one, or that contradicts the files it names."""


class ImageError(SegmedError, ValueError):
    """A file that cannot be read correctly.

    Attributes:
        reason: Short stable code such as `truncated` or `missing_slice`, for ledgers and tests.
        paths: The offending files, where they are known.
    """

    def __init__(self, message: str, *, reason: str, paths: Iterable[Path | str] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.paths = tuple(Path(path) for path in paths)


class GeometryError(ImageError):
    """A grid that is missing, absurd, or not the expected one."""

    def __init__(
        self, message: str, *, reason: str = "other_grid", paths: Iterable[Path | str] = ()
    ) -> None:
        super().__init__(message, reason=reason, paths=paths)


class ModelError(SegmedError, ValueError):
    """A network that cannot be built as asked, or an input that it cannot take."""


class WeightsError(SegmedError, ValueError):
    """A weight file that does not fit the network."""


class PackageError(SegmedError, ValueError):
    """A model package that is damaged, incomplete or of another schema version."""


class MetricError(SegmedError, ValueError):
    """A score that would be meaningless."""


class TrainingError(SegmedError, RuntimeError):
    """A training that cannot continue."""


class ServiceError(SegmedError, ConnectionError):
    """A server that does not answer, or refuses."""


class RefusedRequestError(ServiceError):
    """A server's final answer to one request, such as HTTP 404; asking again changes nothing."""


class AccessDeniedError(ServiceError):
    """A server refuses this caller: wrong password, certificate or AE title.

    Asking again changes nothing, and may lock an account: a run ends at the first one.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out, on the machine or on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error) if isinstance(error, RuntimeError) else ""
    return any(words in text for words in _MEMORY_WORDS)


def is_device_fault(error: BaseException) -> bool:
    """Return whether an exception means that a GPU failed.

    After most of these errors every later call of the same process fails, too: the process must be
    replaced.
    """
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return type(error).__name__ == "AcceleratorError" or any(
        words in str(error) for words in _DEVICE_WORDS
    )


_MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "CUDA error: out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Parts of PyTorch's messages where memory ran out."""

_DEVICE_WORDS = ("CUDA error", "CUDNN_STATUS_", "CUBLAS_STATUS_", "HIP error")
"""Parts of PyTorch's messages where a GPU failed."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a list: it lists those that are.

    Args:
        kind: What the name should have named, such as `model`.
        name: What was got.
        known: The names that would do.

    Returns:
        The error, to be raised by the caller.
    """
    return UsageError(f"unknown {kind} {name!r}: known are {', '.join(sorted(known))}")
