"""Read the bytes that a header promises: all of them, no more memory than the file really fills.

A compressed stream is read to its end, so that its checksum is verified.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from segmed.errors import ImageError

GZIP_MAGIC = b"\x1f\x8b"

MAX_TRAILING_BYTES = 1 << 20
"""Bytes after the last voxel that are passed over; more is no padding."""

_CHUNK = 1 << 20


class Readable(Protocol):
    """Anything that gives bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


def truncated(path: Path, detail: str = "the file ends before its last voxel") -> ImageError:
    """The error for a file that is shorter than its header says."""
    return ImageError(
        f"{path.name}: {detail}; fetch the file again", reason="truncated", paths=[path]
    )


def is_zipped(path: Path) -> bool:
    """Whether a file's first bytes are gzip's."""
    with path.open("rb") as stream:
        return stream.read(2) == GZIP_MAGIC


@contextmanager
def unzipped(path: Path) -> Iterator[Readable]:
    """A file opened for reading, through gzip where its first bytes say so.

    Raises:
        ImageError: `truncated` or `corrupt`: the stream ends early or fails its checksum.
    """
    with path.open("rb") as raw, stream_errors(path):
        if is_zipped(path):
            with gzip.open(raw, "rb") as stream:
                yield stream
        else:
            yield raw


@contextmanager
def stream_errors(path: Path) -> Iterator[None]:
    """Turn what a decompressor raises into the file's refusal.

    Raises:
        ImageError: `truncated` or `corrupt`.
    """
    try:
        yield
    except EOFError as error:
        raise truncated(path) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ImageError(
            f"{path.name}: the compressed stream is damaged ({error}); fetch the file again",
            reason="corrupt",
            paths=[path],
        ) from error


class Inflated:
    """A zlib stream as a readable; at its end the checksum has been verified."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._inflater = zlib.decompressobj()

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` inflated bytes; none at the end.

        Raises:
            EOFError: The file ends before the stream does.
        """
        while not self._inflater.eof:
            pending = self._inflater.unconsumed_tail or self._stream.read(_CHUNK)
            if not pending:
                raise EOFError
            if piece := self._inflater.decompress(pending, max(size, 0)):
                return piece
        return b""


def skip(stream: Readable, count: int, path: Path) -> None:
    """Pass over `count` bytes.

    Raises:
        ImageError: `truncated`.
    """
    while count > 0:
        piece = stream.read(min(count, _CHUNK))
        if not piece:
            raise truncated(path)
        count -= len(piece)


def read_voxels(
    stream: Readable,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    path: Path,
    begun: bytes = b"",
) -> npt.NDArray[Any]:
    """The raw voxels, first axis fastest; the stream is read to its end.

    Args:
        stream: Positioned behind `begun`.
        shape: Voxels along each axis.
        dtype: Type and byte order of a voxel.
        path: The file, for the message.
        begun: Bytes of voxels that were read before.

    Returns:
        `[*shape]` in Fortran order.

    Raises:
        ImageError: `truncated` or `trailing_data`.
    """
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    kept = bytearray(begun)
    while len(kept) < wanted:
        piece = stream.read(min(wanted - len(kept), _CHUNK))
        if not piece:
            raise truncated(path, f"the file ends after {len(kept)} of {wanted} bytes of voxels")
        kept += piece
    trailing = len(kept) - wanted
    while piece := stream.read(_CHUNK):
        trailing += len(piece)
        if trailing > MAX_TRAILING_BYTES:
            raise ImageError(
                f"{path.name}: more than {MAX_TRAILING_BYTES} bytes follow the last voxel; "
                "the header does not describe this file",
                reason="trailing_data",
                paths=[path],
            )
    flat = np.frombuffer(kept, dtype=dtype, count=wanted // dtype.itemsize)
    return flat.reshape(shape, order="F")
