"""Keep a compiler's signal stack out of the process: OpenVINO leaves one behind and frees it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SS_DISABLE = 2
"""Flag of a signal stack that is not in use; Linux, `sigaltstack(2)`."""


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (
        ("pointer", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def unchanged_signal_stack() -> Iterator[None]:
    """Give the calling thread back the alternative signal stack that it had.

    OpenVINO 2026.4 sets one while it compiles and unmaps it with the compiled model. Python's
    handlers run on that stack, so the next Ctrl-C or SIGTERM would end in a segmentation fault
    instead of a saved checkpoint. Outside Linux this does nothing.
    """
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    before = _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        if not before.pointer:
            before.flags = SS_DISABLE
        libc.sigaltstack(ctypes.byref(before), None)
