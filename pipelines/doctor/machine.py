"""The machine: device, processors, memory, clock."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from pipelines.doctor.finding import Finding
from segmed.inference.int8_units import has_int8_units

if TYPE_CHECKING:
    import torch

GB = 1e9
LOW_MEMORY_GB = 2.0
"""Less memory than this stops a training or a large segmentation."""

LARGEST_ERROR = 1e-2
"""Largest relative error of a sound bfloat16 convolution."""

CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Files with the memory limit of a container: cgroup version 2, then 1."""

DRIVER = Path("/proc/driver/nvidia/version")
"""File in which NVIDIA's driver states its version."""

RELEASED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""No clock that is right shows an earlier time."""


def look_at_machine() -> Iterator[Finding]:
    """Device, processors, memory and clock."""
    yield device()
    yield from driver(DRIVER)
    yield from arithmetic()
    units = "with" if has_int8_units() else "without"
    yield Finding("processors", f"{len(os.sched_getaffinity(0))}, {units} int8 units")
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


def driver(place: Path) -> Iterator[Finding]:
    """The version of NVIDIA's driver and of the CUDA that PyTorch is built for.

    Args:
        place: File in which the driver states its version; without it there is no finding.
    """
    import torch  # noqa: PLC0415 - takes seconds

    if place.exists():
        version = driver_version(place.read_text(encoding="utf-8", errors="replace"))
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        yield Finding("driver", f"NVIDIA {version or 'unknown'}, PyTorch is built for {built}")


def driver_version(text: str) -> str | None:
    """The version that the driver states, such as `570.133.20`; None if it states none."""
    found = re.search(r"(?<![\w.])\d{3,}\.\d+(\.\d+)?(?![\w.])", text.partition("\n")[0])
    return found[0] if found else None


def arithmetic() -> Iterator[Finding]:
    """Compare bfloat16 convolution on the GPU with float64: some cuDNN compute it wrongly."""
    import torch  # noqa: PLC0415 - takes seconds

    if torch.cuda.is_available():
        version = torch.backends.cudnn.version()
        yield judge_arithmetic(convolution_error(torch.device("cuda")), f"cuDNN {version}")


def convolution_error(device: torch.device) -> float:
    """Relative error of a small bfloat16 convolution of a volume.

    Args:
        device: Where it is computed; the reference is float64 on the CPU.
    """
    import torch  # noqa: PLC0415 - takes seconds

    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(1, 32, 24, 24, 24, generator=generator)
    weight = torch.randn(32, 32, 3, 3, 3, generator=generator) / 30
    exact = torch.conv3d(volume.double(), weight.double(), padding=1)
    half = torch.bfloat16
    found = torch.conv3d(volume.to(device, half), weight.to(device, half), padding=1)
    found = found.cpu().double()
    return float((found - exact).norm() / exact.norm())


def judge_arithmetic(error: float, where: str) -> Finding:
    """Judge a relative error of bfloat16; that of its rounding is a few thousandths."""
    fact = f"{where}, relative error {error:.1g}"
    if error <= LARGEST_ERROR:
        return Finding("bf16 convolution", fact)
    repair = "install another cuDNN (known: PyTorch issues 163539 and 166122 of 9.8 to 9.10)"
    return Finding("bf16 convolution", fact, "problem", repair)


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
