"""A tiny BraTS-like set: shells within each other in noise, and a slab that is not annotated."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from tiny_data import CHANNELS, SIDE, tiny_plan

from segmed.manifest import Case, LabelClass, Manifest
from segmed.plan import Plan

IGNORED = 9
REGIONS = (
    LabelClass(name="whole", value=1, region=(1, 2, 3)),
    LabelClass(name="core", value=2, region=(2, 3)),
    LabelClass(name="enhancing", value=3),
)


def nested_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of shells 1, 2 and 3; along the last axis the end is not annotated."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.1, (SIDE, SIDE, SIDE)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    corner = rng.integers(1, 4, 3)
    for value in (1, 2, 3):
        place = tuple(slice(s + 2 * value, s + 14 - 2 * value) for s in corner)
        label[place] = value
        image[place] += 1.5
    label[:, :, -3:] = IGNORED
    return image, label


def nested_manifest(folder: Path, cases: int = 4) -> Manifest:
    """Write the set; half of the cases are held out by each of two folds."""
    rows = []
    for number in range(cases):
        name = f"case{number}"
        for array, kind in zip(nested_case(number), ("image", "label"), strict=True):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}_{kind}.nii")
        rows.append(
            Case(
                id=name,
                group=name,
                image=(f"{name}_image.nii",),
                label=f"{name}_label.nii",
                fold=number % 2,
            )
        )
    return Manifest(
        name="shells",
        labels=REGIONS,
        ignore_value=IGNORED,
        channels=CHANNELS,
        training=tuple(rows),
        root=folder,
    )


def nested_plan(steps: int) -> Plan:
    """The tiny plan for the set."""
    return Plan.model_validate(
        tiny_plan(steps).model_dump() | {"labels": REGIONS, "ignore_value": IGNORED}
    )
