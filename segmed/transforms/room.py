"""Memory that preparing an image takes, known and compared with what is free before it is taken."""

from __future__ import annotations

import resource
from math import prod
from pathlib import Path

import psutil

from segmed.errors import ImageError
from segmed.freed_memory import release_freed_memory
from segmed.plan.schema import Plan
from segmed.transforms.grid_transform import GridTransform

FLOAT_BYTES = 4
MATRIX_BYTES = 8 * 3
"""Bytes of each entry of a resampling matrix in float64, with the copies of its prefilter."""

CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""Limit, use and its parts of a container, by version 2 and 1 of control groups."""

FILE_CACHE = frozenset({"inactive_file", "active_file"})
"""Parts of the use that the kernel gives back when memory is short: files that were read."""


SMALL_BYTES = 2**24
"""Needs below are not compared with what is free: asking takes longer than a small image does."""


def temporary_voxels(transform: GridTransform, plan: Plan) -> int:
    """Largest number of temporary voxels while an image is clipped and resampled."""
    rules = plan.preprocessing
    copies = any(
        rule.low is not None or rule.high is not None or rule.nonzero
        for rule in rules.all_intensities
    )
    held = plan.network_channels * prod(transform.cropped_shape)
    held = held if copies or rules.bias_correction else 0
    return held + resampling_voxels(transform)


def resampling_voxels(transform: GridTransform) -> int:
    """Largest number of temporary voxels while one channel is resampled axis by axis."""
    sizes = list(transform.cropped_shape)
    growth = [new / old for new, old in zip(transform.shape, sizes, strict=True)]
    held = peak = 0
    for axis in sorted(range(len(sizes)), key=lambda axis: (growth[axis], axis)):
        if sizes[axis] != transform.shape[axis]:
            sizes[axis] = transform.shape[axis]
            peak = max(peak, held + prod(sizes))
            held = prod(sizes)
    mirrored = prod(transform.shape) if any(transform.flips) else 0
    return max(peak, held + mirrored)


def resampling_bytes(transform: GridTransform, num_channels: int) -> int:
    """Bytes that resampling takes beside its input: the result, temporaries and matrices."""
    pairs = zip(transform.cropped_shape, transform.shape, strict=True)
    matrices = max((MATRIX_BYTES * old * new for old, new in pairs if old != new), default=0)
    result = FLOAT_BYTES * num_channels * prod(transform.shape)
    return result + max(FLOAT_BYTES * resampling_voxels(transform), matrices)


def free_bytes() -> int:
    """Memory that this process may still take: of the machine, its container and its own limit."""
    free = [int(psutil.virtual_memory().available)]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free.append(limit - int(psutil.Process().memory_info().vms))
    free += [left for names in CGROUP_FILES if (left := _container_bytes(*names)) is not None]
    return max(0, min(free))


def _container_bytes(limit: str, used: str, parts: str) -> int | None:
    """Memory that a container has left; None if it has no known limit."""
    try:
        text = (CGROUP / limit).read_text(encoding="utf-8").strip()
        if text == "max":
            return None
        left = int(text) - int((CGROUP / used).read_text(encoding="utf-8"))
        stated = [
            line.split() for line in (CGROUP / parts).read_text(encoding="utf-8").splitlines()
        ]
        return left + sum(int(value) for name, value in stated if name in FILE_CACHE)
    except (OSError, ValueError):
        return None


def require_room(need: int, what: str) -> None:
    """Raise ImageError `out_of_memory` if `need` bytes are more than are free.

    Args:
        need: Bytes about to be taken.
        what: Noun phrase of what takes them, for the message.

    Raises:
        ImageError: `out_of_memory`.
    """
    if need < SMALL_BYTES:
        return
    free = free_bytes()
    if need > free:
        release_freed_memory()
        free = free_bytes()
    if need > free:
        raise ImageError(
            f"{what} needs {need / 2**30:.2f} GB, {free / 2**30:.2f} GB are free: check the "
            "spacing in the image's header, free memory, or use a model of a coarser spacing",
            reason="out_of_memory",
        )
