"""The path of one image through the files, as the page on the architecture lists it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from documentation import REPOSITORY
from tiny_data import hippocampus_package

PAGE = REPOSITORY / "docs" / "architecture.md"
SCAN = next(REPOSITORY.glob("data_manifests/hippocampus_sample/images/*.nii.gz"))
ROW = re.compile(r"^\| \d+ \| `(\S+)` \| `(\S+)` \|[^|]*\|([^|]*)\|$", flags=re.MULTILINE)
MOST_FILES = 14


def listed() -> tuple[list[tuple[str, str]], set[str]]:
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
    paths = [tmp_path / "scan.nii.gz", package, tmp_path / "out"]
    words = [sys.executable, "-m", "tests.docs.path_trace", *paths]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=REPOSITORY, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    trace = json.loads(done.stdout.splitlines()[-1])
    assert trace["exit_code"] == 0, trace["output"]
    steps, files = listed()
    assert len({file for file, _ in steps}) == len(steps) <= MOST_FILES
    called = [(file, function) for file, function in trace["calls"]]
    assert [step for step in called if step in steps] == steps
    folders = tuple(name for name in files if name.endswith("/"))
    assert [f for f in sorted(set(trace["files"]) - files) if not f.startswith(folders)] == []


def test_files_of_the_page_exist() -> None:
    _, files = listed()
    assert len(files) > MOST_FILES
    assert [name for name in sorted(files) if not (REPOSITORY / name).exists()] == []
