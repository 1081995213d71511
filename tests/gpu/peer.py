"""nnU-Net's own trainer on the same cases for the same time, where its packages were carried along.

Plans, augmentation, optimiser and inference are nnU-Net's. Its learning rate falls to the end of
the time; its preparation is not counted, as ours is not. The cases are those of `dice`, and the
scores are compared case by case.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from segmed.evaluation import compare_folders
from segmed.manifest import Case, Manifest
from tests.gpu.cases import hippocampus
from tests.gpu.findings import Check

NAME = "Dataset004_Hippocampus"

CHILD = """
import json, os, shutil, sys, time
from pathlib import Path
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints, plan_experiments)
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

job = json.loads(sys.argv[1])
SECONDS, TINY, WORKERS = job["seconds"], job["tiny"], job["workers"]


def run_training(self):
    "As nnU-Net's; the number of epochs follows from the time of the second one."
    self.on_train_start()
    begun = last = time.monotonic()
    while self.current_epoch < self.num_epochs:
        self.on_epoch_start()
        self.on_train_epoch_start()
        steps = range(self.num_iterations_per_epoch)
        self.on_train_epoch_end([self.train_step(next(self.dataloader_train)) for _ in steps])
        with torch.no_grad():
            self.on_validation_epoch_start()
            steps = range(self.num_val_iterations_per_epoch)
            self.on_validation_epoch_end(
                [self.validation_step(next(self.dataloader_val)) for _ in steps])
        self.on_epoch_end()
        now = time.monotonic()
        if self.current_epoch == 2 and not TINY:
            more = int((SECONDS - (now - begun)) / (now - last))
            self.num_epochs = self.lr_scheduler.max_steps = max(3, 2 + more)
        last = now
    self.seconds = time.monotonic() - begun
    self.on_train_end()


if __name__ == "__main__":
    extract_fingerprints([4], num_processes=WORKERS, check_dataset_integrity=False)
    plan_experiments([4])
    base = Path(job["preprocessed"]) / job["name"]
    settings = PlansManager(str(base / "nnUNetPlans.json")).get_configuration("3d_fullres")
    settings.preprocessor_class(verbose=False).run(
        4, "3d_fullres", "nnUNetPlans", num_processes=WORKERS)
    shutil.copytree(Path(job["raw"]) / job["name"] / "labelsTr", base / "gt_segmentations")
    (base / "splits_final.json").write_text(json.dumps([job["split"]]))
    nnUNetTrainer.run_training = run_training
    if TINY:  # without processes; the planner needs at least one
        os.environ["nnUNet_n_proc_DA"] = "0"
    trainer = get_trainer_from_args("4", "3d_fullres", 0, device=torch.device(job["device"]))
    if TINY:
        trainer.num_epochs = trainer.num_iterations_per_epoch = 1
        trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    trainer.perform_actual_validation(False)
    Path(job["out"]).write_text(json.dumps({
        "folder": str(Path(trainer.output_folder) / "validation"), "seconds": trainer.seconds,
        "epochs": trainer.current_epoch, "batch": settings.batch_size,
        "steps": trainer.current_epoch * trainer.num_iterations_per_epoch,
        "patch": "x".join(str(n) for n in settings.patch_size)}))
"""


def run(check: Check) -> None:
    """Train nnU-Net for the check's seconds, score its held-out cases beside ours."""
    if find_spec("nnunetv2") is None:
        check.note("nnU-Net", "not installed: left out")
        return
    manifest, _ = hippocampus(check)
    folder = check.scratch / "nnunet"
    found = trained(check, manifest, folder)
    table = scored(manifest, Path(found["folder"]), folder / "references")
    check.note("nnU-Net: seconds of training", float(found["seconds"]))
    check.note("nnU-Net: epochs of 250 steps", int(found["epochs"]))
    check.note("nnU-Net: patch and patches a step", f"{found['patch']} at {found['batch']}")
    check.note("nnU-Net: Dice", float(table["dice"].mean()))
    if check.dice is None:
        return
    ours, theirs = (found.set_index(["case", "label"])["dice"] for found in (check.dice, table))
    by_case = (ours - theirs).groupby("case").mean().dropna()
    check.note("cases that both have scored", len(by_case))
    check.note("Dice of hippocampus, ours - nnU-Net's, mean over cases", float(by_case.mean()))
    check.note("  its standard error", float(by_case.std() / len(by_case) ** 0.5))


def trained(check: Check, manifest: Manifest, folder: Path) -> dict[str, object]:
    """Train in a process of its own, since nnU-Net reads its folders from the environment."""
    places = {key: folder / key for key in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    inside, held_out = manifest.split(0)
    if check.is_tiny:
        inside, held_out = inside[:4], held_out[:2]
    write_raw(manifest, [*inside, *held_out], places["nnUNet_raw"] / NAME)
    out, workers = folder / "found.json", max(1, (os.cpu_count() or 2) - 2)
    job = {
        "seconds": check.seconds, "tiny": check.is_tiny, "workers": workers, "name": NAME,
        "raw": str(places["nnUNet_raw"]), "preprocessed": str(places["nnUNet_preprocessed"]),
        "split": {"train": [c.id for c in inside], "val": [c.id for c in held_out]},
        "device": check.device.type, "out": str(out),
    }  # fmt: skip
    environment = {
        **os.environ, **{key: str(place) for key, place in places.items()},
        "nnUNet_n_proc_DA": str(workers), "nnUNet_compile": "f",
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-c", CHILD, json.dumps(job)]
        done = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise RuntimeError((folder / "log").read_text(encoding="utf-8", errors="replace")[-600:])
    found: dict[str, object] = json.loads(out.read_text(encoding="utf-8"))
    return found


def write_raw(manifest: Manifest, cases: Sequence[Case], folder: Path) -> None:
    """Write cases as nnU-Net wants them: links, and a record of channels and labels."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in cases:
        label = manifest.label_path(case)
        assert label is not None  # a training case has one
        shutil.copy(manifest.image_paths(case)[0], folder / "imagesTr" / f"{case.id}_0000.nii.gz")
        shutil.copy(label, folder / "labelsTr" / f"{case.id}.nii.gz")
    record = {
        "channel_names": {"0": manifest.channels[0].modality},
        "labels": {"background": 0, **{item.name: item.value for item in manifest.labels}},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(record), encoding="utf-8")


def scored(manifest: Manifest, predictions: Path, references: Path) -> pd.DataFrame:
    """Scores of nnU-Net's label maps by our metrics, one row a case and label."""
    references.mkdir()
    for case in manifest.training:
        label = manifest.label_path(case)
        if label is not None and (predictions / f"{case.id}.nii.gz").exists():
            shutil.copy(label, references / f"{case.id}.nii.gz")
    return compare_folders(predictions, references, labels=manifest.labels).table
