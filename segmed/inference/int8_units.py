"""Detection of a processor's units for products of 8-bit integers and of bfloat16."""

from __future__ import annotations

from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""File in which Linux lists the features of the processor."""

INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"})
"""Features that multiply and add bytes in one instruction: Intel and AMD, then ARM.

Without them int8 gains little over float32, and some kernels saturate.
"""


BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Features that multiply and add bfloat16: Intel and AMD, then ARM. Without them it is emulated."""


def has_int8_units() -> bool:
    """Return whether this processor has units for int8; False where it cannot be found out."""
    return bool(_features() & INT8_FLAGS)


def has_bf16_units() -> bool:
    """Return whether this processor has units for bfloat16; False where it cannot be found out."""
    return bool(_features() & BF16_FLAGS)


@cache
def _features() -> frozenset[str]:
    try:
        return features_in(CPU_INFO.read_text(encoding="utf-8"))
    except OSError:
        return frozenset()


def features_in(text: str) -> frozenset[str]:
    """Features of the first processor in the text of `/proc/cpuinfo`."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()
