"""Out-of-fold cases of a real set as plain numbers: trained fold by fold, resumable, then kept.

Each fold and seed is one training of a CPU budget in a folder of its own; a stopped recording goes
on with the step after the last checkpoint. The held-out cases of a fold are segmented by the first
network and by the mean of all seeds, whose agreement is then honest: none had seen the case.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.io.atomic import write_whole
from segmed.manifest import Manifest, assign_folds, build_manifest
from segmed.package import ModelPackage
from segmed.plan import Plan, read_plan, write_plan
from segmed.plan.make import make_plan
from segmed.plan.resources import Resources
from segmed.quality.cases import QualityCases, write_quality_cases
from segmed.training import train
from segmed.training.finish import commit_hash

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RECORDED = Path(__file__).parent / "results" / "quality"
FOLDS = 5
DIGITS = 5


@dataclass(frozen=True)
class Recording:
    """A recording of one set.

    Attributes:
        name: Folder of the set in `../shared/data`.
        folder: For trainings, segmentations and the cases of finished folds.
        seconds: CPU seconds of one training.
        networks: Trainings of each fold, with seeds 0, 1, ...
        folds: Folds to do now.
    """

    name: str
    folder: Path
    seconds: float
    networks: int = 3
    folds: Sequence[int] = tuple(range(FOLDS))

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that a finished fold depends on."""
        return {"seconds": self.seconds, "networks": self.networks, "folds": FOLDS}

    def manifest(self) -> Manifest:
        """The labelled cases in five folds by patient."""
        manifest = build_manifest(DATA / self.name, name=self.name)
        cases = assign_folds(manifest.training, num_folds=FOLDS)
        return manifest.model_copy(update={"training": cases, "test": ()})

    def plan(self, manifest: Manifest) -> Plan:
        """The default plan of the budget; a recording that goes on keeps its plan."""
        path = self.folder / "plan.yaml"
        if not path.exists():
            plan = make_plan(manifest, resources=Resources(self.seconds, clock="cpu"))
            self.folder.mkdir(parents=True, exist_ok=True)
            write_plan(plan, path)
        return read_plan(path)

    def run(self) -> Path | None:
        """Train and segment what is missing; the file of the set once all folds are there."""
        self._require_same()
        manifest = self.manifest()
        plan = self.plan(manifest)
        for fold in self.folds:
            if self._fold_file(fold).exists():
                print(f"{self.name}: fold {fold} is there", flush=True)
                continue
            begin = time.process_time()
            packages = [self._trained(manifest, plan, fold, seed) for seed in range(self.networks)]
            self._segment(manifest, fold, packages)
            print(f"{self.name}: fold {fold}, {time.process_time() - begin:.0f} CPU s", flush=True)
        left = [fold for fold in range(FOLDS) if not self._fold_file(fold).exists()]
        if left:
            print(f"{self.name}: to do: folds {', '.join(map(str, left))}", flush=True)
            return None
        return self._keep()

    def _require_same(self) -> None:
        path = self.folder / "settings.json"
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != self.settings:
            raise SystemExit(
                f"{self.folder} is a recording with {path.read_text(encoding='utf-8')}: give the "
                "same options to go on, or another --folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(self.settings))

    def _fold_file(self, fold: int) -> Path:
        return self.folder / f"fold{fold}.json"

    def _trained(self, manifest: Manifest, plan: Plan, fold: int, seed: int) -> ModelPackage:
        place = self.folder / f"seed{seed}fold{fold}"
        if (place / "package").exists():
            return ModelPackage.load(place / "package")
        return train(
            manifest,
            plan,
            architecture="unet",
            fold=fold,
            budget=f"{self.seconds:g}s-cpu",
            out=place,
            seed=seed,
            resume=True,
            device="cpu",
            cache_dir=self.folder / "cache",
            validation_share=0.02,
        )

    def _segment(self, manifest: Manifest, fold: int, packages: Sequence[ModelPackage]) -> None:
        found = {}
        for name, members in (("one_network", packages[:1]), ("all_networks", packages)):
            cases: QualityCases = score_cases(
                Predictor(members, device="cpu", engine="torch"),
                manifest,
                manifest.split(fold)[1],
                out_dir=self.folder / name,
                with_features=True,
            ).quality_cases
            path = write_quality_cases(self.folder / f"{name}-{fold}.json", cases)
            found[name] = json.loads(path.read_text(encoding="utf-8"))
        write_whole(self._fold_file(fold), json.dumps(found))

    def _keep(self) -> Path:
        """One file of the set: the cases of all folds, in five digits."""
        tables: dict[str, dict[str, Any]] = {"one_network": {}, "all_networks": {}}
        for fold in range(FOLDS):
            content = json.loads(self._fold_file(fold).read_text(encoding="utf-8"))
            for name, cases in content.items():
                tables[name] |= cases
        record = {
            "data": self.name,
            **self.settings,
            "commit": commit_hash(),
            "threads": torch.get_num_threads(),
            "cases": _rounded(tables),
        }
        RECORDED.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, separators=(",", ":"), sort_keys=True)
        return write_whole(RECORDED / f"{self.name}.json", text)


def _rounded(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _rounded(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_rounded(value) for value in content]
    return float(f"{content:.{DIGITS}g}") if isinstance(content, float) else content
