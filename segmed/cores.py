"""Number of cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that the process is bound to, or those of the machine; at least one."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
