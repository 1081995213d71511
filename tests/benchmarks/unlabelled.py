"""Segmentations of the images without labels in `../shared/data`, by ensembles of five folds.

Run: `python -m tests.benchmarks.unlabelled [SET...] [--cpu-seconds N] [--folder DIR]`. Each set
passes the commands of a user: `segmed manifest build`, `segmed compare --models unet --folds all`
and `segmed predict` by the package in `best`. Its label maps are kept in
`results/unlabelled/SET`, beside `results/unlabelled/SET.json` with the budget and the out-of-fold
Dice, so that whoever has the labels can score them. A run that was stopped goes on with its folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from segmed.io.atomic import write_whole
from segmed.manifest import read_manifest
from segmed.package import ModelPackage
from segmed.training.finish import commit_hash

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
KEPT = Path(__file__).parent / "results" / "unlabelled"
SETS = ("hippocampus", "left_atrium", "cardiac_mr", "brain_many_labels")
GROUPS = {"cardiac_mr": r"(patient\d+)"}
FOLDS = 5
MAX_BYTES = 2 * 10**6
"""Most that all label maps together may take."""


def segmed(*words: str | Path) -> None:
    """Run a command as a user would."""
    print("segmed", *words, flush=True)
    subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, words)],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def segment_unlabelled(name: str, folder: Path, cpu_seconds: float) -> dict[str, Any]:
    """Train the folds of a set, segment its images without labels, and keep the label maps.

    Args:
        name: Folder of the set in `../shared/data`.
        folder: For manifest, trainings and segmentations.
        cpu_seconds: CPU seconds of the training of each fold.

    Returns:
        Budget, out-of-fold Dice and provenance, as JSON values.
    """
    source, listed = DATA / name, folder / f"{name}.json"
    if not listed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        group = ("--group-by", GROUPS[name]) if name in GROUPS else ()
        segmed("manifest", "build", source, "-o", listed, "--name", name, *group)
    compared, found = folder / name, folder / f"{name}-unlabelled"
    budget = f"{cpu_seconds * FOLDS:.0f}s-cpu"
    segmed(
        "compare", listed, "--models", "unet", "--folds", "all", "--budget", budget, "-o", compared
    )  # fmt: skip
    manifest = read_manifest(listed)
    images = [manifest.image_paths(case)[0].resolve() for case in manifest.test]
    segmed("predict", *images, "--model", compared / "best", "-o", found)
    maps = sorted(found.glob("*.nii.gz"))
    if len(maps) != len(images):
        raise SystemExit(f"{name}: {len(maps)} label maps of {len(images)} images in {found}")
    kept = KEPT / name
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for path in maps:
        shutil.copy(path, kept / path.name)
    record = {
        "images": len(maps),
        "cpu_seconds_a_fold": cpu_seconds,
        "folds": FOLDS,
        "package": ModelPackage.load(compared / "best").hash,
        "out_of_fold_dice": out_of_fold_dice(compared),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "commit": commit_hash(),
    }
    write_whole(KEPT / f"{name}.json", (json.dumps(record, indent=2) + "\n").encode())
    return record


def out_of_fold_dice(compared: Path) -> dict[str, float]:
    """Mean Dice of each structure, each case by the network that was not trained on it."""
    values: dict[str, list[float]] = defaultdict(list)
    with (compared / "out_of_fold" / "unet" / "scores.csv").open(encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            if row["dice"]:
                values[row["label"]].append(float(row["dice"]))
    return {label: round(statistics.fmean(of), 4) for label, of in values.items()}


def main() -> int:
    """Segment the sets asked for, and check the size of what is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all if left out"
    )
    parser.add_argument("--cpu-seconds", type=float, default=1800.0, help="of each fold")
    parser.add_argument("--folder", type=Path, default=Path("unlabelled-runs"))
    given = parser.parse_args()
    if unknown := sorted(set(given.sets) - set(SETS)):
        parser.error(f"unknown set {unknown[0]!r}: known are {', '.join(SETS)}")
    for name in given.sets or SETS:
        print(json.dumps(segment_unlabelled(name, given.folder, given.cpu_seconds), indent=2))
    size = sum(path.stat().st_size for path in KEPT.rglob("*.nii.gz"))
    print(f"{KEPT}: {size / 1e6:.2f} MB of label maps")
    return 0 if size <= MAX_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
