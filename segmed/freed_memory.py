"""Memory that is freed and kept for the next tensors, instead of going back to the system.

PyTorch on a CPU frees each activation, and the GNU C library returns every large block at once. The
next step gets such blocks anew, page by page, each cleared by the system: a third of the time of a
full-width U-Net on windows of 96 cubed, an eighth of a training step with 149 classes.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of the parameters of `mallopt` in <malloc.h>."""

KEPT_BLOCKS = (2**30, 32 * 2**20)
"""Largest blocks that are kept, in bytes: versions of the library before 2.35 take the second."""

KEPT_AT_END = 2**30
"""Free bytes at the end of the heap that are kept."""


def keep_freed_memory() -> bool:
    """Keep what this process frees from now on, for its next allocations.

    Returns:
        Whether the C library does so; only GNU's does.
    """
    library = _c_library()
    if library is None:
        return False
    is_set = any(library.mallopt(MMAP_THRESHOLD, size) for size in KEPT_BLOCKS)
    return bool(is_set and library.mallopt(TRIM_THRESHOLD, KEPT_AT_END))


def release_freed_memory() -> None:
    """Give everything that is freed and kept back to the system."""
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


@cache
def _c_library() -> Any:
    """GNU's C library as it is loaded; None where another is."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # TypeError: Windows has no library of the process itself
        return None
    has_both = all(hasattr(library, name) for name in ("mallopt", "malloc_trim"))
    return library if has_both else None
