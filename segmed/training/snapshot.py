"""Copies of a training's state that are written while the training continues."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


class HostCopy:
    """Tensors of a state in host memory, as they were at one moment.

    On a GPU they are copied into pinned memory by a stream of their own. Later steps wait for that
    on the device; the host waits for nothing. The memory is used again for the next copy.

    Args:
        device: Device of the training.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: list[Tensor] = []
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._copied: torch.cuda.Event | None = None

    def take(self, state: Any) -> Any:
        """The same mappings and lists, with copies in place of tensors; see `wait`.

        The copies of the call before are overwritten.

        Args:
            state: Any nesting of mappings, sequences, tensors and plain values.
        """
        leaves, form = tree_flatten(state)
        tensors = [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor)]
        self._make_room(tensors)
        if self._stream is None:
            self._copy(tensors)
        else:
            present = torch.cuda.current_stream(self._device)
            self._stream.wait_stream(present)
            with torch.cuda.stream(self._stream):
                self._copy(tensors)
            self._copied = torch.cuda.Event()
            self._copied.record(self._stream)
            present.wait_event(self._copied)  # the next step changes the weights in place
        copies = iter(self._buffers)
        return tree_unflatten(
            [next(copies) if isinstance(leaf, Tensor) else leaf for leaf in leaves], form
        )

    def wait(self) -> None:
        """Wait until the copies are made; any thread may."""
        if self._copied is not None:
            self._copied.synchronize()

    def _make_room(self, tensors: list[Tensor]) -> None:
        kinds = [(tensor.shape, tensor.dtype) for tensor in tensors]
        if [(buffer.shape, buffer.dtype) for buffer in self._buffers] != kinds:
            is_pinned = self._stream is not None
            self._buffers = [
                torch.empty(shape, dtype=dtype, pin_memory=is_pinned) for shape, dtype in kinds
            ]

    def _copy(self, tensors: list[Tensor]) -> None:
        for buffer, tensor in zip(self._buffers, tensors, strict=True):
            buffer.copy_(tensor, non_blocking=True)


class BackgroundWriter:
    """Runs one piece of writing after the other in a thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Return whether a piece is still being written."""
        return self._running is not None and not self._running.done()

    def start(self, write: Callable[[], None]) -> None:
        """Write; the piece before must be finished, see `wait`."""
        self._running = self._pool.submit(write)

    def check(self) -> None:
        """Raise the error of the piece that was written last, if it failed."""
        if not self.is_busy:
            self.wait()

    def wait(self) -> None:
        """Wait for the piece that is being written.

        Raises:
            Exception: The error with which it failed; once.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
