"""Fail a test that leaves the main thread another signal stack, and give the old one back.

A stack that a library sets and frees (OpenVINO's compiler does) kills the suite at the next signal
of any later test, without a trace.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Generator

import pytest


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (
        ("pointer", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


def _current(replacement: _SignalStack | None = None) -> _SignalStack:
    """The signal stack of this thread, which is then replaced if there is another one."""
    found = _SignalStack()
    new = None if replacement is None else ctypes.byref(replacement)
    ctypes.CDLL(None).sigaltstack(new, ctypes.byref(found))
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note the signal stack before a test with its fixtures."""
    if sys.platform == "linux":
        item.stash[_BEFORE] = _current()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Compare it after the test's own fixtures have ended."""
    result = yield
    before = item.stash.get(_BEFORE, None)
    if before is not None and _current().pointer != before.pointer:
        _current(before)
        pytest.fail("left another signal stack: compile within `unchanged_signal_stack`")
    return result


_BEFORE = pytest.StashKey[_SignalStack]()
