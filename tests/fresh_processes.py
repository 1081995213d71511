"""Processes for tests, forked from a server that has the libraries and no threads.

A fork of the test process itself would copy the locks that its threads have, and then may wait for
them for ever; which threads there are depends on the tests that ran before.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess

FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["segmed.training", "segmed.archive", "segmed.inference"])


def fresh_process(act: Callable[..., object], *args: object) -> BaseProcess:
    """A process that will call a function of a module with arguments that can be pickled."""
    return FRESH.Process(target=_call, args=(dict(os.environ), act, args))


def _call(
    environment: dict[str, str], act: Callable[..., object], args: tuple[object, ...]
) -> None:
    """Call the function in the environment of today, not of the server's start."""
    os.environ.clear()
    os.environ.update(environment)
    act(*args)
