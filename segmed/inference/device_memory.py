"""Memory of a GPU: its forecast, and how many windows go through the network at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import prod

import torch

from segmed.inference.sliding import WindowRecipe
from segmed.transforms.inverse import CUDA_PIECE_BYTES
from segmed.transforms.room import FLOAT_BYTES

USABLE_SHARE = 0.8
"""Share of the free memory that a forecast may fill; the rest is for fragments and libraries."""

BATCH_VOXELS = 2**23
"""Voxels of a full batch of windows: a window of 128 cubed takes 15 ms alone, 11 in twos, 9 in
fours (full-width U-Net, H200)."""

ROW_COPIES = 3
"""Copies of the buffer's rows alive at once: the sums, the rows kept for the inverse, and both."""

PIECES = 4
"""Pieces of probabilities alive at once: two operands of an interpolation, the sum, its classes."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes that one segmentation takes on a GPU beside the weights, part by part.

    Attributes:
        window: A batch of windows inside the network, at its peak.
        volume: The network's input.
        buffer: Sums of the windows in reach, and rows kept for the inverse.
        pieces: Pieces of probabilities on the image's grid.
        label: The label map.
    """

    window: int
    volume: int
    buffer: int
    pieces: int
    label: int

    @property
    def blend(self) -> int:
        """All but the network: what goes to the host's memory if there is no room."""
        return self.volume + self.buffer + self.pieces + self.label

    @property
    def total(self) -> int:
        """Peak of the whole."""
        return self.window + self.blend

    def beside(self, other: DeviceMemory) -> DeviceMemory:
        """Memory of this segmentation and of the same image's by the networks of another plan."""
        return DeviceMemory(
            window=self.window + other.window,
            volume=self.volume + other.volume,
            buffer=self.buffer + other.buffer,
            pieces=self.pieces + other.pieces,
            label=max(self.label, other.label),
        )

    def __str__(self) -> str:
        parts = [f"{item.name} {getattr(self, item.name) / 2**20:.0f} MB" for item in fields(self)]
        return f"{self.total / 2**30:.2f} GB on the GPU ({', '.join(parts)})"


def forecast_device_memory(
    shape: tuple[int, ...],
    image_shape: tuple[int, ...],
    recipe: WindowRecipe,
    *,
    channels: int,
    num_classes: int,
    window_bytes: int,
) -> DeviceMemory:
    """Memory of one segmentation on a GPU, before anything is placed there.

    Args:
        shape: Voxels of the prepared image along each axis.
        image_shape: Voxels of the image as stored.
        recipe: Its windows.
        channels: Channels of the prepared image.
        num_classes: Classes, the background included.
        window_bytes: Peak of one window inside the network, see `CudaEngine.window_bytes`.
    """
    padded = [max(size, edge) for size, edge in zip(shape, recipe.window, strict=True)]
    rows = prod(padded) // padded[recipe.buffer_dim] * recipe.window[recipe.buffer_dim]
    probs = FLOAT_BYTES * num_classes * prod(image_shape)
    return DeviceMemory(
        window=recipe.batch * window_bytes,
        volume=FLOAT_BYTES * channels * prod(padded),
        buffer=ROW_COPIES * FLOAT_BYTES * num_classes * rows,
        pieces=PIECES * min(CUDA_PIECE_BYTES, probs),
        label=prod(image_shape),
    )


def full_batch(window: tuple[int, ...]) -> int:
    """Windows in a full batch on a GPU, where memory allows."""
    return max(1, BATCH_VOXELS // prod(window))


def fitting_batch(full: int, *, free: int, window_bytes: int, blend: int) -> int:
    """Windows that go through the network at once: the largest power of two that fits.

    Where blending fits beside a single window only without it, the batch has the memory for itself.

    Args:
        full: Windows of a full batch.
        free: Free bytes that may be used.
        window_bytes: Peak of one window inside the network.
        blend: Bytes of the rest of a segmentation.
    """
    room = free - blend if free - blend >= window_bytes else free
    batch = 1
    while 2 * batch <= full and 2 * batch * window_bytes <= room:
        batch *= 2
    return batch


def usable_bytes(device: torch.device, *, share: float = 1.0) -> int:
    """Bytes of a GPU that this process may still fill.

    Args:
        device: The GPU; a CPU has no bound here, its memory is checked elsewhere.
        share: Part of the free memory that is this process's, where several share the GPU.
    """
    if device.type != "cuda":
        return 2**62
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(USABLE_SHARE * share * free) + cached


def peak_of(device: torch.device, action: Callable[[], object]) -> int:
    """Bytes by which an action raises the memory allocated on a GPU; 0 on a CPU."""
    if device.type != "cuda":
        action()
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    action()
    torch.cuda.synchronize(device)
    return max(0, torch.cuda.max_memory_allocated(device) - before)
