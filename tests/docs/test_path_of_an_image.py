"""The path of one image through the files, as the page on the architecture lists it."""

from __future__ import annotations

import re
import shutil
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
from documentation import REPOSITORY
from tiny_data import hippocampus_package
from typer.testing import CliRunner

from pipelines.cli.app import app

PAGE = REPOSITORY / "docs" / "architecture.md"
PACKAGES = (f"{REPOSITORY}/segmed/", f"{REPOSITORY}/pipelines/")
SCAN = next(REPOSITORY.glob("data_manifests/hippocampus_sample/images/*.nii.gz"))
ROW = re.compile(r"^\| \d+ \| `(\S+)` \| `(\S+)` \|[^|]*\|([^|]*)\|$", flags=re.MULTILINE)
MOST_FILES = 14
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


def listed() -> tuple[list[Step], set[str]]:
    """The functions of the page's table in their order, and all files and folders in it."""
    steps, files = [], set()
    for file, function, beside in ROW.findall(PAGE.read_text(encoding="utf-8")):
        steps.append((file, function))
        names = re.findall(r"`(\S+)`", beside)
        files |= {file, *(n if "/" in n else f"{file.rpartition('/')[0]}/{n}" for n in names)}
    return steps, files


def test_image_passes_the_files_of_the_page_in_their_order(tmp_path: Path) -> None:
    shutil.copy(SCAN, tmp_path / "scan.nii.gz")
    package = hippocampus_package().save(tmp_path / "package")
    words = ["predict", tmp_path / "scan.nii.gz", "--model", package, "-o", tmp_path / "out"]
    with traced() as trace:
        result = CliRunner().invoke(app, [*map(str, words), "--engine", "torch"])
    assert result.exit_code == 0, result.output
    steps, files = listed()
    assert len({file for file, _ in steps}) == len(steps) <= MOST_FILES
    assert [step for step in trace.calls if step in steps] == steps
    folders = tuple(name for name in files if name.endswith("/"))
    assert [f for f in sorted(trace.files - files) if not f.startswith(folders)] == []


def test_files_of_the_page_exist() -> None:
    _, files = listed()
    assert len(files) > MOST_FILES
    assert [name for name in sorted(files) if not (REPOSITORY / name).exists()] == []
