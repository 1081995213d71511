"""Steps of the preparation beside MONAI's own transforms of the same meaning: CPU time and bits.

Run by `make bench`, or `python -m tests.benchmarks.bench_transforms`. One process and thread, the
best of several calls in turn, on one MR volume and its label map; the file is uncompressed. A step
that gives MONAI's values to the bit is one of our own only if MONAI's takes longer, which
`tests/transforms/test_monais_own.py` checks on the record.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

RESULTS = Path(__file__).parent / "results" / "transforms.json"
SHAPE, SPACING_MM = (192, 224, 160), (0.9, 0.9, 1.3)
REPEATS = 7
CT = {"low": -1.0, "high": 2.0, "mean": 0.25, "std": 1.5}
VALUES = (0, 2, 7)


@dataclass(frozen=True)
class Pair:
    """One step of ours and the transform of MONAI that has its meaning.

    Attributes:
        ours: From the input to our output.
        theirs: From the input to MONAI's output.
        source: `path`, `image` or `label`: the input of both.
        peer: Name of MONAI's transform.
    """

    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]
    source: str
    peer: str


def pairs(shape: tuple[int, ...] = SHAPE) -> dict[str, Pair]:
    """The steps that have a counterpart, by name.

    Args:
        shape: Voxels of the image.
    """
    from monai import transforms as monai  # noqa: PLC0415 - loads all of MONAI

    from segmed import transforms as ours  # noqa: PLC0415 - only where it is measured
    from segmed.io import SafeReader  # noqa: PLC0415 - likewise
    from segmed.plan.schema import Intensity  # noqa: PLC0415 - likewise

    def scaled(**rule: Any) -> Callable[[Any], Any]:
        rules = [Intensity(**rule)]
        clip, scale = ours.ClipChannels(rules), ours.ScaleChannels(rules, in_place=True)
        return lambda image: scale(clip(image))

    clip = [
        monai.ThresholdIntensity(CT["high"], above=False, cval=CT["high"]),
        monai.ThresholdIntensity(CT["low"], cval=CT["low"]),
    ]
    normal = monai.NormalizeIntensity
    box = tuple((edge // 16, edge - edge // 8) for edge in shape)
    starts, stops = zip(*box, strict=True)
    target = (1.2, 1.2, 1.2)
    spacing = monai.Spacing(target, mode=3, padding_mode="mirror", dtype=np.float32)
    read = monai.LoadImage(reader="NibabelReader", ensure_channel_first=True)
    foreground = monai.CropForeground(select_fn=_is_filled, allow_smaller=True)
    return {
        "read": Pair(lambda path: SafeReader().image([path]), read, "path", "LoadImage"),
        "orientation": Pair(
            ours.Reorient("LPS", mirror=False),
            monai.Orientation("LPS", labels=None),
            "image",
            "Orientation",
        ),
        "orientation and mirroring": Pair(
            ours.Reorient("LPS"), monai.Orientation("LPS", labels=None), "image", "Orientation"
        ),
        "crop to non-zero": Pair(ours.CropNonzero(), foreground, "image", "CropForeground"),
        "crop to a box": Pair(
            ours.CropBox(box),
            monai.SpatialCrop(roi_start=starts, roi_end=stops),
            "image",
            "SpatialCrop",
        ),
        "intensity, z-score": Pair(
            scaled(scheme="zscore"), normal(channel_wise=True), "image", "NormalizeIntensity"
        ),
        "intensity, CT": Pair(
            scaled(scheme="ct", **CT),
            monai.Compose([*clip, normal(CT["mean"], CT["std"])]),
            "image",
            "ThresholdIntensity, NormalizeIntensity",
        ),
        "intensity, unit": Pair(
            scaled(scheme="unit"), monai.ScaleIntensity(0.0, 1.0), "image", "ScaleIntensity"
        ),
        "resampling": Pair(ours.SplineSpacing(target), spacing, "image", "Spacing"),
        "class indices": Pair(
            ours.ClassIndices(VALUES),
            monai.MapLabelValue(VALUES, range(len(VALUES)), dtype=torch.uint8),
            "label",
            "MapLabelValue",
        ),
    }


def _is_filled(voxels: Any) -> Any:
    return voxels != 0


def inputs(folder: Path, shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    """A path, an image and a label map; the image is zero at its borders.

    Args:
        folder: Where the file is written.
        shape: Voxels along each axis.
    """
    from segmed.metatensor import MetaTensor  # noqa: PLC0415 - loads PyTorch's part of MONAI

    random = np.random.default_rng(0)
    voxels = random.normal(size=shape).astype(np.float32)
    for axis in range(3):
        edge = np.moveaxis(voxels, axis, 0)
        edge[:6] = edge[-6:] = 0.0
    affine = np.diag([*SPACING_MM, 1.0])
    path = folder / "image.nii"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    label = np.asarray(VALUES)[np.digitize(voxels, [0.5, 1.0])].astype(np.int32)
    placed = torch.from_numpy(affine)
    return {
        "path": path,
        "image": MetaTensor(torch.from_numpy(voxels)[None], affine=placed),
        "label": MetaTensor(torch.from_numpy(label)[None], affine=placed),
    }


def has_equal_bits(pair: Pair, given: Any) -> bool:
    """Return whether both give the same values in the same places."""
    ours, theirs = (torch.as_tensor(one(given)).detach() for one in (pair.ours, pair.theirs))
    ours, theirs = (getattr(one, "as_tensor", lambda one=one: one)() for one in (ours, theirs))
    return ours.shape == theirs.shape and bool(torch.equal(ours.double(), theirs.double()))


def measure(pair: Pair, given: Any) -> dict[str, Any]:
    """CPU milliseconds of both, best of several calls in turn."""
    best = {"ours": float("inf"), "theirs": float("inf")}
    for _ in range(REPEATS):
        for name, call in (("ours", pair.ours), ("theirs", pair.theirs)):
            begun = time.process_time()
            call(given)
            best[name] = min(best[name], time.process_time() - begun)
    return {
        "peer": pair.peer,
        "ours_ms": round(1000 * best["ours"], 3),
        "theirs_ms": round(1000 * best["theirs"], 3),
        "has_equal_bits": has_equal_bits(pair, given),
    }


def main() -> None:
    """Measure, print and keep the figures."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "").parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        given = inputs(Path(folder))
        steps = {name: measure(pair, given[pair.source]) for name, pair in pairs().items()}
    result = {"shape": list(SHAPE), "steps": steps, "load_before": round(load, 1)}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
