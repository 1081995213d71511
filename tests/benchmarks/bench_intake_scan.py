"""Header-only scan of many DICOM files, beside dcm2niix and bare pydicom header reads.

Run: `python -m tests.benchmarks.bench_intake_scan [--files 10000] [--data ../shared/data]`.

The tree is made of real MR files (hippocampus and brain series), each copy with identifiers of its
own and a meaningless name, several series to a folder. All readers find the files in the page
cache; times are CPU seconds of one thread. dcm2niix writes only its JSON notes (`-b o`); bare
pydicom reads each header up to the pixels and groups nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pydicom

from segmed.io.dicom.scan import scan

RESULTS = Path(__file__).parent / "results" / "intake_scan.json"
REPOSITORY = Path(__file__).resolve().parents[2]


def real_files(data: Path) -> list[tuple[bytes, list[bytes]]]:
    """Content of each real file, and the identifiers in it that each copy must change."""
    found = []
    for name in ("hippocampus_dicom", "pgbm"):
        for path in sorted((data / name).rglob("*.dcm")):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            uids = [header.SeriesInstanceUID, header.StudyInstanceUID, header.SOPInstanceUID]
            found.append((path.read_bytes(), [str(uid).encode() for uid in uids]))
    return found


def renamed(uid: bytes, copy: int) -> bytes:
    """Another identifier of the same length."""
    tail = str(copy).rjust(4, "1").encode()
    return uid[:-4].rstrip(b".") + tail if uid[-5:-4] != b"." else uid[:-4] + tail


def make_tree(folder: Path, data: Path, count: int) -> None:
    """Write `count` files in folders of 500, shuffled."""
    originals = real_files(data)
    order = list(range(count))
    random.Random(0).shuffle(order)
    for place, index in enumerate(order):
        content, uids = originals[index % len(originals)]
        copy = index // len(originals)
        for uid in uids:
            content = content.replace(uid, renamed(uid, 1000 + copy))
        target = folder / f"{place // 500:03d}" / f"{place:06d}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)


def timed(work: Callable[[], int]) -> tuple[float, float, int]:
    """CPU seconds (children counted), wall seconds, and what came out."""
    begin, wall = os.times(), time.perf_counter()
    result = work()
    spent = [after - before for before, after in zip(begin[:4], os.times()[:4], strict=True)]
    return sum(spent), time.perf_counter() - wall, result


def bare_headers(folder: Path) -> int:
    """Read every header with pydicom alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = [path for path in folder.rglob("*") if path.is_file()]
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    return len({header.SeriesInstanceUID for header in headers})


def dcm2niix(folder: Path) -> int:
    """Sort the tree with dcm2niix; -1 where it is not installed."""
    program = shutil.which("dcm2niix")
    if program is None:
        return -1
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            [program, "-b", "o", "-d", "9", "-o", out, folder], capture_output=True, check=False
        )
        return len(list(Path(out).glob("*.json")))


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tree(folder, options.data, options.files)
        readers: dict[str, Callable[[], int]] = {
            "segmed scan": lambda: sum(audit.usable for audit in scan(folder)),
            "bare pydicom headers": lambda: bare_headers(folder),
            "dcm2niix -b o": lambda: dcm2niix(folder),
        }
        rows = {}
        for label, work in readers.items():
            cpu, wall, series = timed(work)
            rows[label] = {
                "cpu_seconds": round(cpu, 2),
                "wall_seconds": round(wall, 2),
                "files_per_cpu_second": round(options.files / cpu),
                "series": series,
            }
            print(f"{label:22} {cpu:7.2f} s CPU {wall:7.2f} s {options.files / cpu:8.0f} files/s")
    record = {
        "files": options.files,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "pydicom": pydicom.__version__,
        "readers": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
