"""Load, turn and resample 512 x 512 x 128 voxels, beside MONAI, SimpleITK, scipy and nnU-Net.

Run: `python -m tests.benchmarks.bench_preprocessing`. Every contender gets a process of its own and
one thread; figures are CPU seconds and the peak of resident memory above the imports. `error` is
the largest difference from the cubic spline through the input, evaluated by scipy at random voxels
of the contender's own grid, so that a misplaced grid shows as well as a wrong weight.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

RESULTS = Path(__file__).parent / "results" / "bench_preprocessing.json"
SHAPE, SPACING_MM, TARGET_MM = (512, 512, 128), (0.8, 0.8, 2.5), (1.5, 1.5, 2.0)
TARGET_SHAPE = (273, 273, 160)
BARS = {"speed_over_monai": 8.0, "memory_over_monai": 0.5, "difference_from_scipy": 1e-5}
NUM_PROBES, MARGIN = 20_000, 24


@dataclass
class Output:
    """Output of a contender: the image `[X, Y, Z]`, the label, and the image's RAS+ affine."""

    image: np.ndarray
    label: np.ndarray
    affine_ras: np.ndarray


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """A smooth random volume and a label, stored as LPS."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(65, 65, 33)).astype(np.float32)
    image = ndimage.zoom(
        coarse, [new / old for new, old in zip(SHAPE, coarse.shape, strict=True)], order=1
    )
    image += 0.05 * random.normal(size=SHAPE).astype(np.float32)
    label = np.digitize(image, [0.5, 1.0]).astype(np.uint8)
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    affine[:3, 3] = (200.0, 180.0, -50.0)
    paths = folder / "image.nii", folder / "label.nii"
    for path, array in zip(paths, (image.astype(np.float32), label), strict=True):
        nib.save(nib.Nifti1Image(array, affine), path)
    return paths


def segmed_chain() -> Callable[[Path, Path], Output]:
    """Our own reader and preprocessing."""
    from segmed.io import read_image, read_label  # noqa: PLC0415 - only in its process
    from segmed.manifest import Channel, LabelClass  # noqa: PLC0415 - only in its process
    from segmed.plan.schema import Augmentation, Intensity, Plan, Preprocessing, Recipe  # noqa: PLC0415 - only in its process
    from segmed.preprocessing import prepare, prepare_label  # noqa: PLC0415 - only in its process

    plan = Plan(
        name="bench",
        spatial_dims=3,
        channels=(Channel(name="CT", modality="CT"),),
        labels=(LabelClass(name="one", value=1), LabelClass(name="two", value=2)),
        preprocessing=Preprocessing(
            spacing_mm=TARGET_MM, intensity=(Intensity(scheme="ct", mean=0.0, std=1.0),)
        ),
        patch_size=(64, 64, 64),
        networks={},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
    )

    def run(image: Path, label: Path) -> Output:
        prepared = prepare(read_image(image), plan)
        classes = prepare_label(read_label(label), prepared, plan)
        return Output(prepared.tensor[0].numpy(), classes.numpy(), prepared.grid.affine_ras)

    return run


def monai_chain() -> Callable[[Path, Path], Output]:
    """MONAI's transforms as its tutorials chain them, not lazy, order 3."""
    from monai.transforms import (  # noqa: PLC0415 - only in its process
        Compose,
        EnsureChannelFirstd,
        LoadImaged,
        Orientationd,
        Spacingd,
    )

    keys = ["image", "label"]
    chain = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            Orientationd(keys, axcodes="RAS", labels=None),
            Spacingd(keys, pixdim=TARGET_MM, mode=(3, 0), padding_mode="mirror"),
        ]
    )

    def run(image: Path, label: Path) -> Output:
        done = chain({"image": image, "label": label})
        return Output(
            done["image"][0].numpy(), done["label"][0].numpy(), done["image"].affine.numpy()
        )

    return run


def scipy_chain() -> Callable[[Path, Path], Output]:
    """nibabel, flips and `scipy.ndimage.zoom`: the definition that we follow."""

    def run(image: Path, label: Path) -> Output:
        arrays = []
        for path, order in ((image, 3), (label, 0)):
            loaded = nib.as_closest_canonical(nib.load(path))
            array = np.asarray(loaded.dataobj)
            factors = [new / old for new, old in zip(TARGET_SHAPE, array.shape, strict=True)]
            arrays.append(ndimage.zoom(array, factors, order=order, grid_mode=True, mode="reflect"))
        return Output(arrays[0], arrays[1], target_affine(loaded.affine))

    return run


def target_affine(affine_ras: np.ndarray) -> np.ndarray:
    """The affine of the target grid over the same field of view, from an axis-aligned input's."""
    steps = np.array(SHAPE) / np.array(TARGET_SHAPE)
    scale = np.diag([*steps, 1.0])
    scale[:3, 3] = 0.5 * steps - 0.5
    return np.asarray(affine_ras @ scale)


def simpleitk_chain() -> Callable[[Path, Path], Output]:
    """SimpleITK's reader, orienter and B-spline resampler on our target grid."""
    import SimpleITK as sitk  # noqa: PLC0415, N813 - likewise; its custom

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def run(image: Path, label: Path) -> Output:
        arrays = []
        for path, kind in ((image, sitk.sitkBSpline), (label, sitk.sitkNearestNeighbor)):
            loaded = sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS")  # SimpleITK: from, not to
            steps = np.array(SHAPE) / np.array(TARGET_SHAPE)
            direction = np.array(loaded.GetDirection()).reshape(3, 3)
            spacing = np.array(loaded.GetSpacing())
            origin = np.array(loaded.GetOrigin()) + direction @ (spacing * (0.5 * steps - 0.5))
            grid = (list(TARGET_SHAPE), sitk.Transform(), kind, origin.tolist())
            done = sitk.Resample(
                loaded, *grid, (spacing * steps).tolist(), loaded.GetDirection(), 0.0
            )
            arrays.append(sitk.GetArrayFromImage(done).transpose(2, 1, 0))
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1, -1, 1]) @ direction @ np.diag(spacing * steps)
        affine[:3, 3] = np.diag([-1, -1, 1]) @ origin
        return Output(arrays[0], arrays[1], affine)

    return run


def nnunet_chain() -> Callable[[Path, Path], Output]:
    """nnU-Net's own resampling function after nibabel's reader, all axes in one cubic spline."""
    from nnunetv2.preprocessing.resampling.default_resampling import (  # noqa: PLC0415 - only in its process
        resample_data_or_seg_to_shape,
    )

    def run(image: Path, label: Path) -> Output:
        arrays = []
        for path, is_seg in ((image, False), (label, True)):
            loaded = nib.as_closest_canonical(nib.load(path))
            array = np.asarray(loaded.dataobj)[None]
            done = resample_data_or_seg_to_shape(
                array, TARGET_SHAPE, SPACING_MM, TARGET_MM, is_seg=is_seg, order=0 if is_seg else 3
            )
            arrays.append(done[0])
        return Output(arrays[0], arrays[1], target_affine(loaded.affine))

    return run


CHAINS: dict[str, Callable[[], Callable[[Path, Path], Output]]] = {
    "segmed": segmed_chain,
    "monai": monai_chain,
    "scipy": scipy_chain,
    "simpleitk": simpleitk_chain,
    "nnunet": nnunet_chain,
}


def peak_mb() -> float:
    """Peak resident memory of this process since its start, in MB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(name: str, image: Path, label: Path, out: Path) -> dict[str, Any]:
    """One contender in this process: CPU seconds, wall seconds, extra peak MB."""
    run = CHAINS[name]()
    before_mb, cpu, wall = peak_mb(), time.process_time(), time.perf_counter()
    output = run(image, label)
    record = {
        "cpu_s": round(time.process_time() - cpu, 3),
        "wall_s": round(time.perf_counter() - wall, 3),
        "extra_peak_mb": round(peak_mb() - before_mb, 1),
        "shape": list(output.image.shape),
    }
    np.savez(out, image=output.image, label=output.label, affine=output.affine_ras)
    return record


def spline_error(path: Path, spline: np.ndarray, affine_ras: np.ndarray) -> float:
    """Largest difference of an output from the input's cubic spline, at random inner voxels."""
    with np.load(path) as made:
        image, affine = made["image"], made["affine"]
    random = np.random.default_rng(1)
    index = np.stack([random.integers(0, size, NUM_PROBES) for size in image.shape])
    to_input = np.linalg.inv(affine_ras) @ affine
    at = to_input[:3, :3] @ index + to_input[:3, 3:]
    inner = np.all((at > MARGIN) & (at < np.array(SHAPE)[:, None] - MARGIN), axis=0)
    expected = ndimage.map_coordinates(
        spline, at[:, inner], order=3, mode="mirror", prefilter=False
    )
    return float(np.abs(image[tuple(index[:, inner])] - expected).max())


def in_own_process(name: str, paths: tuple[Path, Path], out: Path) -> dict[str, Any]:
    """Measures one contender in a fresh process with one thread."""
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
    command = [sys.executable, "-m", "tests.benchmarks.bench_preprocessing", "--only", name]
    command += [str(path) for path in (*paths, out)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    if done.returncode != 0:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compare(folder: Path, repeats: int) -> dict[str, Any]:
    """All contenders in turn, the best of `repeats` runs each, and their differences."""
    paths = make_inputs(folder)
    records: dict[str, Any] = {}
    for name in CHAINS:
        if name == "nnunet" and importlib.util.find_spec("nnunetv2") is None:
            records[name] = {"skipped": "nnunetv2 is not installed"}
            continue
        runs = [in_own_process(name, paths, folder / f"{name}.npz") for _ in range(repeats)]
        records[name] = min(runs, key=lambda run: run.get("cpu_s", float("inf")))
    loaded = nib.load(paths[0])
    spline = ndimage.spline_filter(np.asarray(loaded.dataobj), order=3, mode="mirror")
    for name, record in records.items():
        if "cpu_s" in record:
            record["error"] = spline_error(folder / f"{name}.npz", spline, loaded.affine)
    with np.load(folder / "segmed.npz") as ours, np.load(folder / "scipy.npz") as theirs:
        summary = {
            "speed_over_monai": records["monai"]["cpu_s"] / records["segmed"]["cpu_s"],
            "memory_over_monai": records["segmed"]["extra_peak_mb"]
            / records["monai"]["extra_peak_mb"],
            "difference_from_scipy": float(np.abs(ours["image"] - theirs["image"]).max()),
            "labels_differing_from_scipy": int((ours["label"] != theirs["label"]).sum()),
        }
    for name in ("scipy", "simpleitk", "nnunet"):
        if "cpu_s" in records[name]:
            summary[f"speed_over_{name}"] = records[name]["cpu_s"] / records["segmed"]["cpu_s"]
            summary[f"memory_over_{name}"] = (
                records["segmed"]["extra_peak_mb"] / records[name]["extra_peak_mb"]
            )
    met = {
        "speed_over_monai": summary["speed_over_monai"] >= BARS["speed_over_monai"],
        "memory_over_monai": summary["memory_over_monai"] <= BARS["memory_over_monai"],
        "difference_from_scipy": summary["difference_from_scipy"] <= BARS["difference_from_scipy"],
    }
    return {"contenders": records, "summary": summary, "bars": BARS, "met": met}


def main() -> None:
    """Measures, prints and keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", choices=sorted(CHAINS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("paths", nargs="*", type=Path)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, *options.paths)))
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), options.repeats)
    result["machine"] = {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "threads": 1,
        "load_before": round(load, 1),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
