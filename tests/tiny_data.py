"""A tiny real training set: cubes in noise, written as NIfTI, that every network learns to find."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from segmed.manifest import Case, Channel, LabelClass, Manifest, write_manifest
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan import (
    Augmentation,
    Intensity,
    NetworkPlan,
    Plan,
    Preprocessing,
    Recipe,
    write_plan,
)

SIDE = 16
LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2))
CHANNELS = (Channel(name="T1", modality="MR"),)


def write_case(folder: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.1, (SIDE, SIDE, SIDE)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    corner = rng.integers(2, 6, 3)
    for value, start in ((1, corner), (2, corner + 5)):
        place = tuple(slice(s, s + 4) for s in start)
        label[place] = value
        image[place] += 2.0 * value
    for array, kind in ((image, "image"), (label, "label")):
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}_{kind}.nii")


def write_set(folder: Path, *, training: int = 4, test: int = 0, steps: int = 3) -> Path:
    """Write cases, manifest and plan into `folder`; gives the manifest's path.

    Args:
        folder: Where to.
        training: Cases to train on, in two folds.
        test: Cases kept out.
        steps: Steps of an epoch; 3 show that all parts run, 30 find the cubes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for index in range(training + test):
        name = f"case{index}"
        write_case(folder, name, index)
        cases.append(
            Case(
                id=name,
                group=name,
                image=(f"{name}_image.nii",),
                label=f"{name}_label.nii",
                fold=index % 2 if index < training else None,
            )
        )
    manifest = Manifest(
        name="cubes",
        labels=LABELS,
        channels=CHANNELS,
        training=tuple(cases[:training]),
        test=tuple(cases[training:]),
        root=folder,
    )
    write_manifest(manifest, folder / "cubes.json")
    write_plan(tiny_plan(steps), folder / "plan.yaml")
    return folder / "cubes.json"


def tiny_plan(steps: int = 3) -> Plan:
    options = {"widths": [8, 16], "strides": [[1, 1, 1], [2, 2, 2]], "kernels": [[3] * 3] * 2}
    return Plan(
        name="cubes",
        spatial_dims=3,
        channels=CHANNELS,
        labels=LABELS,
        preprocessing=Preprocessing(
            spacing_mm=(1.0, 1.0, 1.0), intensity=(Intensity(scheme="zscore"),)
        ),
        patch_size=(SIDE, SIDE, SIDE),
        networks={
            "unet": NetworkPlan(options=options, learning_rate=1e-2),
            "unetpp": NetworkPlan(options=options, learning_rate=1e-2),
        },
        recipe=Recipe(
            iterations_per_epoch=steps,
            batch_size=2,
            augmentation=Augmentation(rotation_deg=(0.0, 0.0, 0.0)),
        ),
    )


def hippocampus_package(seed: int = 0) -> ModelPackage:
    """A small untrained U-Net for images at 1 mm, quick on real hippocampus images."""
    plan = tiny_plan()
    options = dict(plan.networks["unet"].options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    return ModelPackage("unet", options, plan, network.state_dict())


def affine_from(
    spacing_mm: Sequence[float], origin_mm: Sequence[float] = (0.0, 0.0, 0.0)
) -> np.ndarray:
    """An axis-aligned RAS+ affine; missing axes get an edge of 1 mm."""
    edges = [*spacing_mm, *([1.0] * (3 - len(spacing_mm)))]
    affine = np.diag([*edges, 1.0]).astype(np.float64)
    affine[:3, 3] = origin_mm
    return affine
