"""Seconds of nnU-Net and of segmed from image files to label files, with the same trained model.

Run: `python -m tests.benchmarks.bench_nnunet --peer PYTHON --results FOLDER --images FOLDER`.

`PYTHON` has nnunetv2 2.8.1, `FOLDER` is the results folder of one configuration, and the images are
named as nnU-Net names them (`CASE_0000.nii.gz`). Both commands run on the CPU with as many threads
as there are cores, process start included, one after the other in turn; the least of the repeats
counts. segmed's first call converts the network and is reported apart. Without a peer nothing is
measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "nnunet_inference.json"
PEER = """
import sys
from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder
sys.argv[0] = "nnUNetv2_predict_from_modelfolder"
predict_entry_point_modelfolder()
"""


def seconds(words: Sequence[str | Path]) -> float:
    """Wall seconds of a command.

    Raises:
        SystemExit: It failed; its last lines are shown.
    """
    places = {key: str(REPOSITORY) for key in ("nnUNet_raw", "nnUNet_preprocessed")}
    environment = {**os.environ, **places, "nnUNet_results": str(REPOSITORY)}
    begun = time.perf_counter()
    done = subprocess.run(
        [*map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        encoding="utf-8",
    )
    if done.returncode:
        raise SystemExit("\n".join([f"failed: {words[0]}", *done.stderr.splitlines()[-12:]]))
    return time.perf_counter() - begun


def cases_of(images: Path) -> dict[str, list[Path]]:
    """Channels of each case, in order."""
    found: dict[str, list[Path]] = {}
    for file in sorted(images.glob("*_[0-9][0-9][0-9][0-9].nii.gz")):
        found.setdefault(file.name[: -len("_0000.nii.gz")], []).append(file)
    return found


def equal_voxels(theirs: Path, ours: Path, cases: Sequence[str]) -> float:
    """Share of the voxels that both label alike; files of segmed contain the name of the case."""
    same = total = 0
    for case in cases:
        (found,) = ours.rglob(f"*{case}*.nii.gz")
        expected = np.asarray(nib.load(theirs / f"{case}.nii.gz").dataobj)
        same += int((np.asarray(nib.load(found).dataobj) == expected).sum())
        total += expected.size
    return same / total


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Times of both, their ratio, and the share of equal voxels."""
    cases = cases_of(args.images)
    segmed = [sys.executable, "-m", "pipelines.cli"]
    mirrors = [] if args.mirrors else ["--disable_tta"]
    with tempfile.TemporaryDirectory(prefix="segmed-bench-") as scratch:
        place = Path(scratch)
        source = ["model", "import-nnunet", args.results, "--name", "bench"]
        importing = seconds([*segmed, *source, "--folds", args.folds, "-o", place / "package"])
        ours = ["predict", args.images, "--model", place / "package", "--device", "cpu"]
        ours += ["--cache-dir", place / "converted", *([] if args.mirrors else ["--no-tta"])]
        folds = args.folds.split(",")
        theirs = [args.peer, "-c", PEER, "-i", args.images, "-m", args.results, "-f", *folds]
        theirs += ["-device", "cpu", *mirrors]
        first = seconds([*segmed, *ours, "-o", place / "first"])
        times: dict[str, list[float]] = {"nnU-Net": [], "segmed": []}
        for number in range(args.repeats):
            times["nnU-Net"].append(seconds([*theirs, "-o", place / f"theirs{number}"]))
            times["segmed"].append(seconds([*segmed, *ours, "-o", place / f"ours{number}"]))
        share = equal_voxels(place / "theirs0", place / "ours0", list(cases))
    least = {name: min(found) for name, found in times.items()}
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "cases": len(cases),
        "mirrors": args.mirrors,
        "folds": args.folds,
        "import_s": round(importing, 1),
        "first_call_s": round(first, 1),
        "seconds": {name: round(value, 1) for name, value in least.items()},
        "times_as_fast": round(least["nnU-Net"] / least["segmed"], 2),
        "equal_voxels": round(share, 6),
    }


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="Python with nnunetv2 2.8.1.")
    parser.add_argument("--results", type=Path, help="Results folder of one configuration.")
    parser.add_argument("--images", type=Path, help="Folder of CASE_0000.nii.gz.")
    parser.add_argument("--folds", default="0", help="Such as 0,1,2.")
    parser.add_argument("--mirrors", action="store_true", help="Average over mirror images.")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    if args.peer is None or args.results is None or args.images is None:
        print("nothing measured: give --peer, --results and --images")
        return
    record = measure(args)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
