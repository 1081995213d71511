"""Trace of `segmed predict`: its functions in the order of their calls, and files with voxels.

Run: `python tests/docs/path_trace.py SCAN PACKAGE OUT`; prints JSON. In a process of its own and
without garbage collection: Python 3.11.2 may crash when it collects frames that a profile function
has seen.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from typer.testing import CliRunner

from pipelines.cli.app import app

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = (f"{REPOSITORY}/segmed/", f"{REPOSITORY}/pipelines/")
FEWEST_VOXELS = 1000
"""Values of an array that is a part of an image, and no affine or table."""

Step = tuple[str, str]
"""File and function."""


@dataclass
class Trace:
    """Functions of the repository in the order of their calls, and files that handle voxels."""

    calls: dict[Step, None] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        """Record a call or a return; a profile function."""
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGES) or event not in {"call", "return"}:
            return
        file = Path(code.co_filename).relative_to(REPOSITORY).as_posix()
        if event == "call":
            self.calls.setdefault((file, code.co_qualname))
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            value = [frame.f_locals.get(name) for name in names]
        is_read = ("segmed/io/read.py", "read_case") in self.calls  # weights come before
        if is_read and has_voxels(value):
            self.files.add(file)


def has_voxels(value: Any, depth: int = 3) -> bool:
    """Return whether a value is a large array, or has one in an entry or a field."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return int(np.prod(value.shape)) >= FEWEST_VOXELS
    if isinstance(value, dict):
        value = list(value.values())
    elif type(value).__name__ in {"Loaded", "Read", "Prepared", "Segmentation"}:
        value = list(vars(value).values())
    is_nested = depth > 0 and isinstance(value, list | tuple)
    return is_nested and any(has_voxels(entry, depth - 1) for entry in value[:20])


@contextmanager
def traced() -> Iterator[Trace]:
    """Trace all threads that begin within the block, and this one."""
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def main(scan: str, package: str, out: str) -> None:
    """Segment one image, and print what was traced."""
    gc.disable()
    words = ["predict", scan, "--model", package, "-o", out, "--engine", "torch"]
    with traced() as trace:
        result = CliRunner().invoke(app, words)
    found = {"calls": list(trace.calls), "files": sorted(trace.files)}
    done = {"exit_code": result.exit_code, "output": result.output, **found}
    print(json.dumps(done), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
