"""All scores of one case beside MONAI and surface-distance: CPU seconds, extra memory, values.

Run with `python -m tests.benchmarks.bench_metrics [--cases hippocampus medium large] [--repeat N]`.
Each tool runs in a process of its own on the same files; times are CPU seconds with one thread,
the best of the repeats; extra memory is the peak above what the process held with the label maps
loaded and the tool imported. The table goes to `tests/benchmarks/results/metrics.json`.
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
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import surface_distance as sd
import torch
from monai import metrics
from scipy import ndimage

from segmed.metrics import evaluate_case
from segmed.structures import LabelClass

HERE = Path(__file__).resolve().parent
SHAPES = {"medium": (256, 256, 128), "large": (512, 512, 256)}
SPACING_MM = {"hippocampus": (1.0, 1.0, 1.0), "medium": (0.8, 0.8, 1.5), "large": (0.8, 0.8, 1.5)}
TOLERANCE_MM = 1.0
TOOLS = ("segmed", "monai", "surface_distance")
BARS = {"monai": 20.0, "surface_distance": 2.0}
COMPARED = ("dice", "iou", "hd_mm", "hd95_mm", "assd_mm", "nsd")
Scores = dict[str, list[float]]


def make_case(name: str, folder: Path) -> None:
    """Write prediction and reference of one case as .npy."""
    reference, prediction = _hippocampus() if name == "hippocampus" else _organs(SHAPES[name])
    np.save(folder / "reference.npy", reference)
    np.save(folder / "prediction.npy", prediction)


def _hippocampus() -> tuple[np.ndarray, np.ndarray]:
    folder = HERE.parents[2] / "shared" / "data" / "hippocampus" / "labelsTr"
    path = sorted(folder.glob("*.nii.gz"))[0]
    reference = np.ascontiguousarray(np.asarray(nib.load(path).dataobj).astype(np.uint8))
    prediction = np.roll(reference, (1, 1), (0, 1))
    prediction[10:13, 10:13, 10:13] = 2
    return reference, prediction


def _organs(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Three organs of wavy outline; the prediction waves otherwise and has a stray blob."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    organs = [((-0.4, -0.4, 0.0), 0.42), ((0.45, 0.3, 0.1), 0.36), ((-0.3, 0.55, -0.3), 0.25)]
    maps = []
    for _ in range(2):
        coarse = ndimage.gaussian_filter(rng.standard_normal([n // 8 for n in shape]), 1.5)
        wave = ndimage.zoom(0.03 * coarse / coarse.std(), 8, order=1).astype(np.float32)
        labels = np.zeros(shape, np.uint8)
        for value, (centre, radius) in enumerate(organs, start=1):
            square = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))
            labels[np.sqrt(square) + wave < radius] = value
        maps.append(labels)
    maps[1][:6, :6, :6] = 3
    return maps[0], maps[1]


def with_segmed(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple) -> Scores:
    """Every score that `evaluate_case` gives, of which the six are returned."""
    labels = [LabelClass(name=f"organ {v}", value=v) for v in _values(reference)]
    scores = evaluate_case(
        prediction,
        reference,
        labels=labels,
        spacing_mm=spacing_mm,
        case_id="bench",
        tolerance_mm=TOLERANCE_MM,
    )
    return {name: [getattr(score, name) for score in scores] for name in COMPARED}


def with_monai(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple) -> Scores:
    """The six from MONAI's own functions, from one-hot masks."""
    values = torch.tensor(_values(reference)).reshape(-1, *[1] * reference.ndim)
    y_pred, y = (
        (torch.from_numpy(labels)[None] == values)[None] for labels in (prediction, reference)
    )
    space = {"include_background": True, "spacing": spacing_mm}
    got = {
        "dice": metrics.compute_dice(y_pred, y, include_background=True),
        "iou": metrics.compute_iou(y_pred, y, include_background=True),
        "hd_mm": metrics.compute_hausdorff_distance(y_pred, y, **space),
        "hd95_mm": metrics.compute_hausdorff_distance(y_pred, y, percentile=95, **space),
        "assd_mm": metrics.compute_average_surface_distance(y_pred, y, symmetric=True, **space),
        "nsd": metrics.compute_surface_dice(
            y_pred, y, class_thresholds=[TOLERANCE_MM] * len(values), **space
        ),
    }
    return {name: value[0].tolist() for name, value in got.items()}


def with_surface_distance(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple
) -> Scores:
    """Dice and the surface scores of google-deepmind/surface-distance (it has no IoU)."""
    got: Scores = {name: [] for name in COMPARED if name != "iou"}
    for value in _values(reference):
        truth, mask = reference == value, prediction == value
        distances = sd.compute_surface_distances(truth, mask, spacing_mm)
        got["dice"].append(float(sd.compute_dice_coefficient(truth, mask)))
        got["hd_mm"].append(float(sd.compute_robust_hausdorff(distances, 100)))
        got["hd95_mm"].append(float(sd.compute_robust_hausdorff(distances, 95)))
        got["assd_mm"].append(float(np.mean(sd.compute_average_surface_distance(distances))))
        got["nsd"].append(float(sd.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM)))
    return got


def _values(reference: np.ndarray) -> list[int]:
    return [1, 2] if reference.size < 1e6 else [1, 2, 3]


RUNNERS: dict[str, Callable[..., Scores]] = {
    "segmed": with_segmed,
    "monai": with_monai,
    "surface_distance": with_surface_distance,
}


def measure(tool: str, case: str, folder: Path, repeat: int) -> dict[str, object]:
    """Run one tool in this process and print what it took."""
    tiny = np.zeros((8, 8, 8), np.uint8)
    tiny[2:5, 2:5, 2:5], tiny[6, 6, 6], tiny[1, 6, 6] = 1, 2, 3
    RUNNERS[tool](tiny, tiny, SPACING_MM[case])
    reference = np.load(folder / "reference.npy")
    prediction = np.load(folder / "prediction.npy")
    # The peak starts again from what is held now.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _peak_mb()
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        values = RUNNERS[tool](prediction, reference, SPACING_MM[case])
        seconds.append(time.process_time() - start)
    return {"cpu_s": min(seconds), "extra_mb": _peak_mb() - before, "values": values}


def _peak_mb() -> float:
    """Largest resident memory of this process, in MB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def run_case(case: str, repeat: int) -> dict[str, object]:
    """Run all tools on one case and compare their values."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    rows: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_case(case, folder)
        for tool in TOOLS:
            times = repeat if case == "hippocampus" or tool != "monai" else 1
            command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_metrics"]
            command += ["--measure", tool, "--cases", case, "--folder", name]
            output = subprocess.run(
                [*command, "--repeat", str(times * (10 if case == "hippocampus" else 1))],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, **threads},
                cwd=HERE.parents[1],
                encoding="utf-8",
            ).stdout
            rows[tool] = json.loads(output.splitlines()[-1])
            print(
                f"{case:12} {tool:17} {rows[tool]['cpu_s']:9.4f} CPU-s "
                f"{rows[tool]['extra_mb']:7.0f} MB extra",
                flush=True,
            )
    ours = rows["segmed"]
    result: dict[str, object] = {"tools": rows}
    for peer, bar in BARS.items():
        ratio = rows[peer]["cpu_s"] / ours["cpu_s"]
        apart = {
            metric: float(np.max(np.abs(np.subtract(rows[peer]["values"][metric], values))))
            for metric, values in ours["values"].items()
            if metric in rows[peer]["values"]
        }
        result[peer] = {"ratio": ratio, "bar": bar, "largest_difference": apart}
        print(
            f"{case:12} {ratio:6.1f} times faster than {peer} (bar {bar:g}); largest difference "
            + ", ".join(f"{metric} {value:.2g}" for metric, value in apart.items()),
            flush=True,
        )
    return result


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["hippocampus", "medium", "large"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--measure", choices=TOOLS)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.measure:
        row = measure(options.measure, options.cases[0], options.folder, options.repeat)
        print(json.dumps(row))
        return
    results = {case: run_case(case, options.repeat) for case in options.cases}
    path = HERE / "results" / "metrics.json"
    path.parent.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "cpu": platform.processor() or "x86_64"}
    path.write_text(
        json.dumps({"machine": machine, "cases": results}, indent=1) + "\n", encoding="utf-8"
    )
    print(f"written to {path.relative_to(HERE.parents[1])}")


if __name__ == "__main__":
    main()
