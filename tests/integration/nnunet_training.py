"""Trains small nnU-Net folders and writes what nnU-Net predicts with them.

Run by a Python that has nnunetv2: `python nnunet_training.py SHARED_DATA OUT [SET...]`. The sets:
`mr` (labels, isotropic), `ct` (thick slices in Hounsfield units), `regions` (two channels).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

CASES = 6
ITERATIONS = 3
"""So few that no structure is lost to the background, as in the first epochs of a training."""
LABELS = {"background": 0, "anterior": 1, "posterior": 2}
PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
}
Row = tuple[str, list[Any], Any]


def cases_of(shared: Path) -> Iterator[tuple[str, Any, Any]]:
    """Name, image and label of the first cases of the hippocampus set."""
    files = sorted(path for path in (shared / "hippocampus" / "imagesTr").glob("[!.]*.nii.gz"))
    for image in files[:CASES]:
        label = image.parent.parent / "labelsTr" / image.name
        yield image.name.removesuffix(".nii.gz"), nib.load(image), nib.load(label)


def plain(shared: Path) -> Iterator[Row]:
    """The images as they are."""
    for name, image, label in cases_of(shared):
        yield name, [image], label


def thick(shared: Path) -> Iterator[Row]:
    """Every fourth slice, moved to the range of Hounsfield units."""
    for name, image, label in cases_of(shared):
        affine = image.affine.copy()
        affine[:3, 2] *= 4
        voxels = np.asarray(image.dataobj)[:, :, ::4].astype(np.float32) - 300
        values = np.asarray(label.dataobj)[:, :, ::4].astype(np.uint8)
        yield name, [nib.Nifti1Image(voxels, affine)], nib.Nifti1Image(values, affine)


def doubled(shared: Path) -> Iterator[Row]:
    """Two channels, 0 outside of a part."""
    for name, image, label in cases_of(shared):
        voxels = np.asarray(image.dataobj).astype(np.float32)
        voxels[:3] = 0
        voxels[:, -4:] = 0
        other = np.sqrt(np.abs(voxels))
        other[:, :, :2] = 0
        yield name, [nib.Nifti1Image(one, image.affine) for one in (voxels, other)], label


SETS: dict[str, tuple[int, Callable[[Path], Iterator[Row]], dict[str, Any]]] = {
    "mr": (901, plain, {"channel_names": {"0": "MRI"}, "labels": LABELS}),
    "ct": (902, thick, {"channel_names": {"0": "CT"}, "labels": LABELS}),
    "regions": (
        903,
        doubled,
        {
            "channel_names": {"0": "T1", "1": "T2"},
            "labels": {"background": 0, "whole": [1, 2], "posterior": 2},
            "regions_class_order": [1, 2],
        },
    ),
}


def write_raw(shared: Path, out: Path, name: str) -> Path:
    """Write nnU-Net's raw folder of a set."""
    number, rows, content = SETS[name]
    folder = out / "raw" / f"Dataset{number}_{name}"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case, channels, label in rows(shared):
        for index, channel in enumerate(channels):
            nib.save(channel, folder / "imagesTr" / f"{case}_{index:04d}.nii.gz")
        nib.save(label, folder / "labelsTr" / f"{case}.nii.gz")
    facts = {**content, "numTraining": CASES, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def train(out: Path, raw: Path) -> None:
    """Plan, preprocess and train plain and residual networks in 2D and 3D for an epoch."""
    import torch  # noqa: PLC0415 - after the environment
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: PLC0415 - the same
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: PLC0415 - after the environment

    number = int(raw.name[7:10])
    extract_fingerprints([number], num_processes=1)
    for plans_name, planner in PLANNERS.items():
        os.environ.update(nnUNet_n_proc_DA="1")  # planning takes it as a number of threads
        plan_experiments([number], planner)
        os.environ.update(nnUNet_n_proc_DA="0")
        file = out / "pre" / raw.name / f"{plans_name}.json"
        plans = json.loads(file.read_text(encoding="utf-8"))
        for rules in plans["configurations"].values():
            rules["batch_size"] = 2
            options = rules.get("architecture", {}).get("arch_kwargs", {})
            if options:
                stages = len(options["features_per_stage"])
                options["features_per_stage"] = [min(8 * 2**n, 64) for n in range(stages)]
        file.write_text(json.dumps(plans), encoding="utf-8")
        for configuration in ("2d", "3d_fullres"):
            preprocess([number], plans_name, [configuration], num_processes=(1,))
            averaged = plans_name == "nnUNetPlans" and configuration == "3d_fullres"
            for fold in (0, 1, 2) if averaged else (0,):
                trainer = nnUNetTrainer(
                    plans={**plans, "continue_training": False},
                    configuration=configuration,
                    fold=fold,
                    dataset_json=json.loads((raw / "dataset.json").read_text(encoding="utf-8")),
                    device=torch.device("cpu"),
                )
                trainer.num_epochs = trainer.num_val_iterations_per_epoch = 1
                trainer.num_iterations_per_epoch = ITERATIONS
                trainer.run_training()


def predict(out: Path, raw: Path) -> None:
    """Write nnU-Net's labels of one image by each folder, with and without mirror images."""
    from nnunet_golden import predicted_by_nnunet, predictor_in_float32  # noqa: PLC0415 - after the environment
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - after the environment

    kinds = {"float32": predictor_in_float32(), "float16": nnUNetPredictor}
    case = min(path.name[:-12] for path in (raw / "imagesTr").iterdir())
    files = sorted((raw / "imagesTr").glob(f"{case}_*.nii.gz"))
    (out / "expected").mkdir(exist_ok=True)
    for model in sorted((out / "results" / raw.name).iterdir()):
        labels = {
            f"{name}_{'mirrored' if mirrors else 'plain'}": predicted_by_nnunet(
                kind, model, files, mirrors=mirrors
            )
            for name, kind in kinds.items()
            for mirrors in (True, False)
        }
        np.savez_compressed(out / "expected" / f"{raw.name}__{model.name}.npz", **labels)


def main() -> None:
    """Make all folders of the named sets; of all sets without names."""
    shared, out = Path(sys.argv[1]), Path(sys.argv[2])
    os.environ.update(
        nnUNet_raw=str(out / "raw"),
        nnUNet_preprocessed=str(out / "pre"),
        nnUNet_results=str(out / "results"),
        nnUNet_compile="f",
    )
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    for name in sys.argv[3:] or SETS:
        raw = write_raw(shared, out, name)
        train(out, raw)
        predict(out, raw)


if __name__ == "__main__":
    main()
