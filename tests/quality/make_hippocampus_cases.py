"""Make `hippocampus_cases.json`: features and scores of out-of-fold cases, as plain numbers.

160 cases of the hippocampus set of the Medical Segmentation Decathlon (CC-BY-SA 4.0) in five folds.
For each fold three small U-Nets are trained with seeds 0, 1 and 2 for 45 CPU seconds (about 350
steps). The held-out cases are segmented by the first network, and by the mean of all three. With
one thread it takes about half an hour:

    python tests/quality/make_hippocampus_cases.py FOLDER_OF_THE_SET WORK_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.manifest import Manifest, assign_folds, build_manifest
from segmed.package import ModelPackage
from segmed.plan import make_plan
from segmed.quality.cases import write_quality_cases
from segmed.training import train

TABLE = Path(__file__).with_name("hippocampus_cases.json")
LEFT_OUT = (3, 7, 11)
"""Places of 13 whose cases are left out."""


def main(source: Path, work: Path) -> None:
    """Train, segment, and write the table."""
    manifest = _manifest(source)
    for seed in range(3):
        for fold in range(5):
            place = work / f"seed{seed}fold{fold}"
            if not (place / "package").exists():
                train(
                    manifest,
                    make_plan(manifest),
                    architecture="unet",
                    fold=fold,
                    budget="45s-cpu",
                    out=place,
                    seed=seed,
                    cache_dir=work / "cache",
                    validation_share=0.02,
                )
    table = {
        name: _rounded(_segmented(manifest, work, name, seeds))
        for name, seeds in (("one_network", (0,)), ("three_networks", (0, 1, 2)))
    }
    TABLE.write_text(json.dumps(table, separators=(",", ":"), sort_keys=True), encoding="utf-8")


def _manifest(source: Path) -> Manifest:
    manifest = build_manifest(source)
    cases = sorted(manifest.training, key=lambda case: case.id)
    kept = [case for place, case in enumerate(cases) if place % 13 not in LEFT_OUT]
    return manifest.model_copy(update={"training": assign_folds(kept), "test": ()})


def _segmented(manifest: Manifest, work: Path, name: str, seeds: tuple[int, ...]) -> Any:
    found = {}
    for fold in range(5):
        packages = [ModelPackage.load(work / f"seed{seed}fold{fold}" / "package") for seed in seeds]
        found |= score_cases(
            Predictor(packages, device="cpu", engine="torch"),
            manifest,
            manifest.split(fold)[1],
            out_dir=work / name,
            with_features=True,
        ).quality_cases
    return json.loads(write_quality_cases(work / f"{name}.json", found).read_text(encoding="utf-8"))


def _rounded(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _rounded(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_rounded(value) for value in content]
    return float(f"{content:.5g}") if isinstance(content, float) else content


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
