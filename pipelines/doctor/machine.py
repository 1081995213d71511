"""The machine: device, processors, memory, clock."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipelines.doctor.finding import Finding

GB = 1e9
LOW_MEMORY_GB = 2.0
"""Less memory than this stops a training or a large segmentation."""

CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Files with the memory limit of a container: cgroup version 2, then 1."""

RELEASED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""No clock that is right shows an earlier time."""


def look_at_machine() -> Iterator[Finding]:
    """Device, processors, memory and clock."""
    yield device()
    yield Finding("processors", str(len(os.sched_getaffinity(0))))
    yield memory()
    yield clock(dt.datetime.now(dt.UTC))


def device() -> Finding:
    """The device that `--device auto` chooses, and its memory."""
    import torch  # noqa: PLC0415 - takes seconds

    from segmed.training import choose_device  # noqa: PLC0415 - imports torch

    chosen = choose_device("auto").why
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        fact = f"{chosen}; {free / GB:.1f} of {total / GB:.1f} GB of its memory free"
        if free < LOW_MEMORY_GB * GB:
            return Finding(
                "device", fact, "warning", "see `nvidia-smi` for the processes that use it"
            )
        return Finding("device", fact)
    if Path("/proc/driver/nvidia").exists():
        build = torch.version.cuda or "no CUDA"
        return Finding(
            "device",
            f"{chosen}, though there is an NVIDIA driver (PyTorch is built for {build})",
            "warning",
            "install PyTorch with CUDA; in a container, start the profile gpu",
        )
    return Finding("device", chosen)


def memory_limit() -> int | None:
    """The memory that a container may take, in bytes; None where it may take all."""
    for path in CONTAINER_LIMITS:
        if path.exists():
            text = path.read_text(encoding="ascii").strip()
            if text.isdigit() and int(text) < psutil.virtual_memory().total:
                return int(text)
    return None


def memory() -> Finding:
    """Report the free memory."""
    state = psutil.virtual_memory()
    limit = memory_limit()
    total = limit or state.total
    free = min(state.available, total)
    fact = f"{free / GB:.1f} of {total / GB:.1f} GB available"
    if limit is not None:
        fact += " (limit of the container)"
    if free < LOW_MEMORY_GB * GB:
        repair = f"free some: less than {LOW_MEMORY_GB:g} GB stops trainings and large images"
        return Finding("memory", fact, "warning", repair)
    return Finding("memory", fact)


def clock(now: dt.datetime) -> Finding:
    """Return whether the clock may be right; servers' clocks are compared where servers are."""
    fact = f"{now:%Y-%m-%d %H:%M:%S} UTC, local offset {now.astimezone():%z}"
    if now < RELEASED:
        return Finding("clock", fact, "problem", "set it, and keep it right (chrony, NTP)")
    return Finding("clock", fact)
