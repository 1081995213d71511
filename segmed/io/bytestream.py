"""Read the bytes that a header promises: all of them, with no more memory than the file fills.

A compressed stream is read to its end, so that its checksum is verified.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from segmed.errors import ImageError

GZIP_MAGIC = b"\x1f\x8b"

ZLIB_OUT_OF_MEMORY = "Error -4 "
"""Begin of the text of `zlib.error` where memory, not the stream, was at fault (Z_MEM_ERROR)."""

MAX_PADDING_BYTES = 512
"""Zero bytes after the last voxel that are passed over, as block devices leave them. Anything else
means that the header states fewer voxels than there are."""

_CHUNK = 1 << 20


class Readable(Protocol):
    """Anything that gives bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


def refusal(path: Path, reason: str, message: str) -> ImageError:
    """An error about one file."""
    return ImageError(f"{path.name}: {message}", reason=reason, paths=[path])


def truncated(path: Path, detail: str = "the file ends before its last voxel") -> ImageError:
    """The error for a file that is shorter than its header states."""
    return refusal(path, "truncated", f"{detail}; fetch the file again")


@contextmanager
def unzipped(path: Path) -> Iterator[Readable]:
    """A file opened for reading, through gzip if its first bytes are gzip's.

    Raises:
        ImageError: `truncated` or `corrupt`: the stream ends early or fails its checksum.
    """
    with path.open("rb") as raw, stream_errors(path):
        if os.pread(raw.fileno(), 2, 0) == GZIP_MAGIC:  # leaves the stream and its buffer alone
            with gzip.open(raw, "rb") as stream:
                yield stream
        else:
            yield raw


@contextmanager
def stream_errors(path: Path) -> Iterator[None]:
    """Turn what a decompressor raises into the file's refusal.

    Raises:
        ImageError: `truncated` or `corrupt`.
        MemoryError: The decompressor found no memory.
    """
    try:
        yield
    except EOFError as error:
        raise truncated(path) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        if str(error).startswith(ZLIB_OUT_OF_MEMORY):
            raise MemoryError from error
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
    if isinstance(stream, BufferedReader):
        kept: bytearray | npt.NDArray[np.uint8] = _plain_bytes(stream, wanted, path, begun)
    else:
        kept = _grown_bytes(stream, wanted, path, begun)
    _check_padding(stream, begun[wanted:], path)
    flat = np.frombuffer(kept, dtype=dtype, count=wanted // dtype.itemsize)
    return flat.reshape(shape, order="F")


def _check_padding(stream: Readable, begun: bytes, path: Path) -> None:
    """Read a stream to its end, where nothing but padding may be."""
    piece, length = begun or stream.read(_CHUNK), 0
    while piece:
        length += len(piece)
        if length > MAX_PADDING_BYTES or any(piece):
            raise ImageError(
                f"{path.name}: more bytes follow the last voxel that the header states; the header "
                "does not describe this file: restore it from its source",
                reason="trailing_data",
                paths=[path],
            )
        piece = stream.read(_CHUNK)


def _ends_early(path: Path, there: int, wanted: int) -> ImageError:
    return truncated(path, f"the file ends after {there} of {wanted} bytes of voxels")


def _plain_bytes(
    stream: BufferedReader, wanted: int, path: Path, begun: bytes
) -> npt.NDArray[np.uint8]:
    """The requested bytes of a plain file, whose length is known before memory is taken."""
    begun = begun[:wanted]
    there = len(begun) + os.fstat(stream.fileno()).st_size - stream.tell()
    if there < wanted:
        raise _ends_early(path, max(there, 0), wanted)
    kept = np.empty(wanted, dtype=np.uint8)
    kept[: len(begun)] = np.frombuffer(begun, dtype=np.uint8)
    filled = len(begun)
    while filled < wanted:
        count = stream.readinto(kept.data[filled : filled + _CHUNK])
        if not count:  # cut while it was read
            raise _ends_early(path, filled, wanted)
        filled += count
    return kept


def _grown_bytes(stream: Readable, wanted: int, path: Path, begun: bytes) -> bytearray:
    """The requested bytes of a stream of unknown length: memory grows as they arrive."""
    kept = bytearray(begun)
    while len(kept) < wanted:
        piece = stream.read(min(wanted - len(kept), _CHUNK))
        if not piece:
            raise _ends_early(path, len(kept), wanted)
        kept += piece
    return kept
