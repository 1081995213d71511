"""Detection of a processor's units for products of 8-bit integers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""File in which Linux lists the features of the processor."""

INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"})
"""Features that multiply and add bytes in one instruction: Intel and AMD, then ARM.

Without them int8 gains little over float32, and some kernels saturate.
"""


@cache
def has_int8_units() -> bool:
    """Return whether this processor has units for int8; False where it cannot be found out."""
    try:
        return bool(features_in(CPU_INFO.read_text(encoding="utf-8")) & INT8_FLAGS)
    except OSError:
        return False


def features_in(text: str) -> frozenset[str]:
    """Features of the first processor in the text of `/proc/cpuinfo`."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()
