"""Memory forecast of a segmentation.

Only three things grow with the image: the image itself, the network's input, and the label
map. The sums of the windows cover one window's depth of the volume, for any length.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from math import prod

import numpy as np
import psutil

from segmed.inference.postprocessing import steps_of
from segmed.inference.sliding import WindowRecipe
from segmed.plan import Plan
from segmed.transforms.chain import class_values
from segmed.transforms.grid_transform import GridTransform
from segmed.transforms.inverse import PIECE_BYTES
from segmed.transforms.room import FLOAT_BYTES, require_room, temporary_voxels

INTERPOLATED_PIECES = 3
"""Pieces of probabilities alive at once where the inverse interpolates: two operands, the sum."""

CLASS_BYTES = 12
"""Bytes a voxel of a piece while its most probable class is found: largest value and its index."""

CLEANING_BYTES = 8
"""Bytes a voxel while components are found: a mask, their numbers in 32 bits, two copies."""

SAMPLE_SECONDS = 0.002
"""Step at which a probe looks at the resident set."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a segmentation takes, part by part.

    Attributes:
        base: The process with its networks, before the image is read.
        image: The image as read, float32.
        prepare: Temporaries of preprocessing, gone before the first window.
        tensor: The network's input.
        buffer: Sums of the windows in reach.
        inverse: Rows kept for the inverse, and its pieces.
        window: A batch of windows inside the network, at its peak.
        label: The label map.
        cleaning: Temporaries of post-processing, after the last window.
        keeps_image: Whether the image stays while windows run.
    """

    base: int
    image: int
    prepare: int
    tensor: int
    buffer: int
    inverse: int
    window: int
    label: int
    cleaning: int = 0
    keeps_image: bool = True

    @property
    def preparing(self) -> int:
        """Peak while the image is prepared."""
        return self.base + self.image + self.prepare + self.tensor

    @property
    def segmenting(self) -> int:
        """Peak while windows run."""
        image = self.image if self.keeps_image else 0
        parts = self.tensor + self.buffer + self.inverse + self.window + self.label
        return self.base + image + parts

    @property
    def finishing(self) -> int:
        """Peak while the label map is cleaned; the sums of the windows are gone."""
        image = self.image if self.keeps_image else 0
        return self.base + image + self.tensor + self.label + self.cleaning

    @property
    def total(self) -> int:
        """Peak of the whole."""
        return max(self.preparing, self.segmenting, self.finishing)

    @property
    def total_gb(self) -> float:
        """Peak of the whole, in GB of 2^30 bytes."""
        return self.total / 2**30

    def __str__(self) -> str:
        parts = [
            f"{field.name} {getattr(self, field.name) / 2**20:.0f} MB"
            for field in fields(self)
            if field.name != "keeps_image"
        ]
        return f"{self.total_gb:.2f} GB ({', '.join(parts)})"


@dataclass(frozen=True)
class Surroundings:
    """Conditions of an estimate beside plan and grid.

    Attributes:
        base: Resident set of the process with its networks, in bytes.
        window: Peak of one batch of windows inside the network, in bytes; measured by a probe.
        keeps_image: Whether the image stays while windows run.
        keeps_probs: Whether all probabilities are kept.
    """

    base: int
    window: int
    keeps_image: bool = True
    keeps_probs: bool = False


def estimate_memory(
    plan: Plan, transform: GridTransform, recipe: WindowRecipe, around: Surroundings
) -> MemoryEstimate:
    """The peak memory of one segmentation; with cropping by the plan, an upper bound.

    Args:
        plan: The plan of the network.
        transform: From the grid of the image as stored to the target grid.
        recipe: How the prepared volume is walked.
        around: What was measured.
    """
    voxels, target = prod(transform.grid_in.shape), prod(transform.shape)
    depth = recipe.window[recipe.buffer_dim]
    padded = [max(size, edge) for size, edge in zip(transform.shape, recipe.window, strict=True)]
    padded[recipe.buffer_dim] = depth
    buffer = FLOAT_BYTES * plan.num_classes * prod(padded)
    row = FLOAT_BYTES * plan.num_classes * prod(padded) // depth
    rows_back = transform.cropped_shape[recipe.buffer_dim] / transform.shape[recipe.buffer_dim]
    row_back = row * voxels / target / rows_back
    piece = min(max(PIECE_BYTES, row_back), row_back * depth * rows_back)
    is_resampled = transform.cropped_shape != transform.shape
    alive = INTERPOLATED_PIECES * is_resampled + CLASS_BYTES / (FLOAT_BYTES * plan.num_classes)
    alive += plan.inference.average == "logits"  # probabilities beside the logits of a piece
    label = voxels * (1 if max(class_values(plan)) <= 255 else 2)
    if around.keeps_probs:
        label += FLOAT_BYTES * plan.num_classes * voxels
    # A second stage's input is made beside the image as prepared, which the caller keeps.
    held = plan.network_channels + (plan.in_channels if plan.refines else 0)
    return MemoryEstimate(
        base=around.base,
        image=FLOAT_BYTES * plan.in_channels * voxels,
        prepare=FLOAT_BYTES * temporary_voxels(transform, plan),
        tensor=FLOAT_BYTES * held * target,
        buffer=buffer,
        inverse=int(alive * piece) + 3 * row * is_resampled,
        window=around.window,
        label=label,
        cleaning=CLEANING_BYTES * voxels if steps_of(plan.inference) else 0,
        keeps_image=around.keeps_image,
    )


def together(estimates: Sequence[MemoryEstimate]) -> MemoryEstimate:
    """Memory of segmenting one image by networks of several plans, whose walks go side by side.

    Args:
        estimates: One a plan; the base of the first includes the process.
    """
    if len(estimates) == 1:
        return estimates[0]
    shared = {
        name: max(getattr(one, name) for one in estimates)
        for name in ("image", "prepare", "window", "label", "cleaning")
    }
    added = {
        name: sum(getattr(one, name) for one in estimates)
        for name in ("base", "tensor", "buffer", "inverse")
    }
    return replace(estimates[0], **shared, **added)


def require_free_memory(
    needs: MemoryEstimate, plan: Plan, shape: Sequence[int], *, on_cpu: bool
) -> None:
    """Validate that what grows with the image fits into the memory that is free.

    With cropping by the plan, the prepared image is not counted: only `prepare` gives its size.

    Args:
        needs: The estimate, without the process and the networks.
        plan: The plan of the network.
        shape: Voxels of the target grid along each axis, for the message.
        on_cpu: Whether the network runs on the CPU; the sums of the windows are where it runs.

    Raises:
        ImageError: `out_of_memory`.
    """
    need = needs.label + needs.cleaning
    if not plan.preprocessing.crop_nonzero:
        sums = needs.buffer + needs.inverse if on_cpu else 0
        need = needs.tensor + max(needs.prepare, needs.label + sums, need)
    target = " x ".join(map(str, shape))
    require_room(need, f"the image, segmented on {target} voxels,")


def resident_bytes() -> int:
    """Resident set of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Watch the resident set; gives a function for its peak so far, in bytes."""
    peak = resident_bytes()
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(SAMPLE_SECONDS):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    try:
        yield lambda: max(peak, resident_bytes())
    finally:
        is_over.set()
        watcher.join()


def growth_of(action: Callable[[], object]) -> int:
    """Bytes by which an action raises the resident set at its peak."""
    before = resident_bytes()
    with peak_memory() as peak:
        action()
    return int(np.maximum(peak() - before, 0))
