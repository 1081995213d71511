"""Inference beside MONAI and beside the bare forward pass.

Run: `python -m tests.benchmarks.bench_inference [PART...]`; without a part the short ones run.
Parts: `blend` (window bookkeeping on a stub network, against MONAI, nnU-Net and the memory's own
speed), `cases` (hippocampus cases end to end, by
`predict` and as an archive, against the summed time of their windows), `volumes`
(the same with ten of 256x256x128 voxels; takes long), `engines` (OpenVINO against eager, the seven
names), `rasters` (2,000 PNGs, against one process a file), `big` (512x512x800 voxels, 20 classes:
peak memory against the figure printed beforehand; takes long).
Results join the JSON in `results`.
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
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image
from torch import Tensor

from segmed.archive import FolderSource, RunOptions, segment_archive
from segmed.errors import ModelError
from segmed.inference import Predictor, predict_files
from segmed.inference.choice import EngineRequest, make_engine
from segmed.inference.engine import TorchEngine
from segmed.inference.openvino_engine import Conversion, OpenVinoEngine
from segmed.inference.segmentation import Segmentation
from segmed.inference.sliding import window_grid
from segmed.inference.vocabulary import EngineName
from segmed.io import read_image
from segmed.models import build_model, list_models
from segmed.package import ModelPackage
from segmed.plan import (
    Augmentation,
    Inference,
    Intensity,
    Plan,
    Preprocessing,
    Recipe,
    Topology,
    plan_networks,
)
from segmed.preprocessing import Prepared, prepare
from segmed.structures import Channel, LabelClass
from tests.benchmarks.inference_blend import CPU, Record, blend

RESULTS = Path(__file__).parent / "results" / "bench_inference.json"
HIPPOCAMPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "hippocampus" / "imagesTr"
SHORT = ("blend", "cases", "engines", "rasters")


def a_plan(
    dims: int, patch: tuple[int, ...], *, num_labels: int = 2, inference: Inference | None = None
) -> Plan:
    """A plan without resampling for images of 1 mm."""
    return Plan(
        name="bench",
        spatial_dims=dims,
        channels=(Channel(name="T1", modality="MR"),),
        labels=tuple(LabelClass(name=f"s{n}", value=n) for n in range(1, num_labels + 1)),
        preprocessing=Preprocessing(
            spacing_mm=(1.0,) * dims, intensity=(Intensity(scheme="zscore"),)
        ),
        patch_size=patch,
        networks={},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
        inference=inference or Inference(),
    )


def planned_options(name: str, dims: int) -> Record:
    """The small planned form of an architecture with four levels."""
    strides = ((1,) * dims, *((2,) * dims,) * 3)
    topology = Topology(kernels=((3,) * dims,) * 4, strides=strides)
    return plan_networks(topology, patch_size=(48,) * dims, spacing_mm=(1.0,) * dims, size="small")[
        name
    ].options


def a_package(plan: Plan, options: Record, name: str = "unet") -> ModelPackage:
    """An untrained package; its cost is that of a trained one."""
    torch.manual_seed(0)
    network = build_model(
        name,
        spatial_dims=plan.spatial_dims,
        in_channels=1,
        num_classes=plan.num_classes,
        **options,
    )
    return ModelPackage(name, options, plan, network.state_dict())


class Watched(Predictor):
    """A predictor that adds up the wall time of its phases; its reading does so too."""

    def __init__(self, package: ModelPackage, engine: EngineName) -> None:
        super().__init__(package, engine=engine)
        self.phases = {"read": 0.0, "prepare": 0.0, "network": 0.0, "inverse": 0.0}

    def read(self, path: Path) -> MetaTensor:
        """Read one file."""
        start = time.perf_counter()
        image = read_image(path)
        self.phases["read"] += time.perf_counter() - start
        return image

    def segment(self, prepared: Prepared, *, probabilities: bool = False) -> Segmentation:
        """Segment one prepared image."""
        found = super().segment(prepared, probabilities=probabilities)
        for phase, seconds in found.phases.items():
            self.phases[phase] += seconds
        return found


class Ended(Protocol):
    """Outcome of a file in either walk."""

    @property
    def status(self) -> str:
        """`done`, `refused` or `failed`."""


Walk = Callable[[Watched, Sequence[Path], Path], Iterable[Ended]]


def by_predict(predictor: Watched, paths: Sequence[Path], folder: Path) -> Iterable[Ended]:
    """The files, as `segmed predict` segments them."""
    return predict_files(predictor, paths, folder, read=predictor.read)


def by_archive(predictor: Watched, paths: Sequence[Path], folder: Path) -> Iterable[Ended]:
    """The files, as `segmed archive segment` segments them: with ledger, measures and pictures."""
    root = folder / "archive"
    root.mkdir()
    for path in paths:
        (root / path.name).symlink_to(path)
    options = RunOptions(min_free_bytes=0)
    return segment_archive(
        FolderSource(root), predictor=predictor, out_dir=folder / "out", options=options
    )


def end_to_end(
    package: ModelPackage, paths: Sequence[Path], engine: EngineName, walk: Walk = by_predict
) -> Record:
    """Files to label files, beside the bare forward passes of the windows that they need.

    The bare passes have all threads for one window after the other; the pipeline runs small windows
    side by side.
    """
    predictor = Watched(package, engine)
    window = torch.randn(predictor.batch, 1, *package.plan.patch_size)
    one_stream = EngineRequest(engine, predictor.device, tuple(window.shape), bounds_memory=True)
    bare_engine = make_engine(package, one_stream)
    for warmed in (predictor.engines[0], bare_engine):
        warmed(window)
    batches: list[int] = []
    for path in paths:
        shape = prepare(read_image(path), package.plan).tensor.shape[1:]
        padded = [max(edge, size) for edge, size in zip(window.shape[2:], shape, strict=True)]
        grid = window_grid(torch.empty(1, *padded), predictor.recipe(tuple(shape)))
        full, rest = divmod(grid.count, predictor.batch)
        batches += [predictor.batch] * full + [rest] * (rest > 0)

    def bare_s(sizes: Sequence[int]) -> tuple[float, float]:
        start, cpu = time.perf_counter(), time.process_time()
        for size in sizes:
            bare_engine(window[:size])
        return time.perf_counter() - start, time.process_time() - cpu

    # Half before and half after, for machines whose speed drifts.
    before = bare_s(batches[::2])
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), time.process_time()
        outcomes = list(walk(predictor, paths, Path(folder)))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert all(outcome.status == "done" for outcome in outcomes)
    after = bare_s(batches[1::2])
    bare, bare_cpu = before[0] + after[0], before[1] + after[1]
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "phases_wall_s": predictor.phases,
        "windows": sum(batches),
        "bare_forward_wall_s": bare,
        "bare_forward_cpu_s": bare_cpu,
        "wall_over_bare": wall / bare,
        "cpu_over_bare": cpu / bare_cpu,
    }


def cases(count: int = 100) -> Record:
    """Hippocampus files to label files; bars of the summed forward time: 1.25, archive 1.10."""
    paths = sorted(HIPPOCAMPUS.glob("*.nii.gz"))[:count]
    if not paths:
        return {"skipped": "../shared/data/hippocampus is not there"}
    package = a_package(a_plan(3, (40, 56, 40)), planned_options("unet", 3))
    found: Record = {"cases": len(paths)}
    for engine in ("torch", "openvino"):
        found[engine] = end_to_end(package, paths, engine)
    found["archive"] = end_to_end(package, paths, "openvino", by_archive)
    return found


def volumes(count: int = 10) -> Record:
    """Volumes of 256x256x128 voxels to label files, windows of 96^3; the same bar."""
    package = a_package(a_plan(3, (96, 96, 96)), planned_options("unet", 3))
    found: Record = {"volumes": count}
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{number}.nii.gz" for number in range(count)]
        for number, path in enumerate(paths):
            coarse = torch.randn(1, 1, 16, 16, 8, generator=torch.Generator().manual_seed(number))
            smooth = torch.nn.functional.interpolate(coarse, (256, 256, 128), mode="trilinear")
            voxels = (smooth[0, 0].numpy() * 200 + 500).astype(np.int16)
            nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)
        found["openvino"] = end_to_end(package, paths, "openvino")
    return found


def engines(edge: int = 48) -> Record:
    """One window through eager PyTorch and OpenVINO, for the planned form of each name."""
    found: Record = {}
    for name in list_models():
        package = a_package(a_plan(3, (edge,) * 3), planned_options(name, 3), name)
        network, shape = package.build(), (1, 1, edge, edge, edge)
        start = time.perf_counter()
        try:
            fast = OpenVinoEngine(package.build, Conversion(package.hash, shape))
        except ModelError as error:
            found[name] = {"openvino": str(error)}
            continue
        converted = time.perf_counter() - start
        eager = TorchEngine(network, CPU)
        coarse = torch.rand(1, 1, 6, 6, 6)
        window = torch.nn.functional.interpolate(coarse, shape[2:], mode="trilinear")
        changed = (eager(window).argmax(1) != fast(window).argmax(1)).float().mean()
        times = {engine.name: least_cpu_s(engine, window) for engine in (eager, fast)}
        found[name] = {
            "eager_cpu_s": times["torch"],
            "openvino_cpu_s": times["openvino"],
            "speed_up": times["torch"] / times["openvino"],
            "conversion_wall_s": converted,
            "labels_changed": float(changed),
        }
        print(name, found[name], flush=True)
    return found


def least_cpu_s(engine: Callable[[Tensor], Tensor], window: Tensor, rounds: int = 5) -> float:
    """Least CPU time of one call."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        engine(window)
        seconds.append(time.process_time() - start)
    return min(seconds)


def rasters(count: int = 2000, processes: int = 2) -> Record:
    """PNGs of 256x256 through one predictor, and through a process each; bar ten times the rate."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        generator = np.random.default_rng(0)
        for number in range(count):
            pixels = generator.integers(0, 255, (256, 256), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "in" / f"{number:04}.png")
        package = a_package(a_plan(2, (256, 256)), planned_options("unet", 2))
        package.save(folder / "package")
        start = time.perf_counter()
        predictor = Predictor(ModelPackage.load(folder / "package"))
        outcomes = list(predict_files(predictor, [folder / "in"], folder / "out", trusted=True))
        many = time.perf_counter() - start
        assert sum(outcome.status == "done" for outcome in outcomes) == count
        code = (
            "import sys; from segmed.inference import *; from segmed.package import ModelPackage; "
            "p = Predictor(ModelPackage.load(sys.argv[1])); "
            "list(predict_files(p, [sys.argv[2]], sys.argv[3], trusted=True))"
        )
        start = time.perf_counter()
        for number in range(processes):
            image = str(folder / "in" / f"{number:04}.png")
            arguments = [str(folder / "package"), image, str(folder / "single")]
            subprocess.run([sys.executable, "-c", code, *arguments], check=True)
        single = (time.perf_counter() - start) / processes
    engine = predictor.engines[0]
    return {
        "images": count,
        "images_per_s": count / many,
        "one_process_a_file_per_s": 1 / single,
        "ratio": count / many * single,
        "engine": getattr(engine, "reason", engine.name),
    }


def big(shape: tuple[int, int, int] = (512, 512, 800), num_classes: int = 20) -> Record:
    """`segmed predict` on a large volume: its peak against `--dry-run`; bars 4 GB and 10 %."""
    inference = Inference(overlap=0.25)
    plan = a_plan(3, (128, 128, 64), num_labels=num_classes - 1, inference=inference)
    package = a_package(plan, {"widths": [2, 4], "strides": [[1] * 3, [4] * 3]})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package.save(folder / "package")
        voxels = np.random.default_rng(0).integers(0, 999, shape, dtype=np.int16)
        nib.Nifti1Image(voxels, np.eye(4)).to_filename(folder / "big.nii")
        del voxels
        command = [str(Path(sys.executable).with_name("segmed")), "predict", folder / "big.nii"]
        command += ["--model", folder / "package", "-o", folder / "out"]
        command += ["--engine", "torch", "--memory-gb", "4", "--json"]
        said = subprocess.run(
            [*command, "--dry-run"], check=True, capture_output=True, text=True, encoding="utf-8"
        )
        forecast = json.loads(said.stdout)["forecasts"][0]
        start = time.perf_counter()
        seen = peak_of(command)
        return {
            "shape": shape,
            "classes": num_classes,
            "window": plan.patch_size,
            "forecast": forecast["memory"],
            "forecast_gb": forecast["memory_gb"],
            "peak_gb": seen / 2**30,
            "peak_over_forecast": seen / 2**30 / forecast["memory_gb"],
            "wall_s": time.perf_counter() - start,
        }


def peak_of(command: Sequence[str | Path]) -> int:
    """Largest resident set of a child process, in bytes, as the kernel counted it."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return usage.ru_maxrss * 1024


PARTS: dict[str, Callable[[], Record]] = {
    "blend": blend,
    "cases": cases,
    "volumes": volumes,
    "engines": engines,
    "rasters": rasters,
    "big": big,
}


COUNTED: dict[str, Callable[[int], Record]] = {
    "cases": cases,
    "volumes": volumes,
    "rasters": rasters,
}


def main() -> None:
    """Run the parts asked for and join their results to the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--count", type=int, help="cases, volumes or images, fewer than all")
    parser.add_argument("--big", action="store_true", help="the large volume too")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = list(arguments.parts or SHORT) + (["big"] if arguments.big else [])
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for part in chosen:
        is_counted = part in COUNTED and arguments.count
        result = COUNTED[part](arguments.count) if is_counted else PARTS[part]()
        where = {
            "machine": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "load_average": os.getloadavg()[0],
            "torch": torch.__version__,
        }
        found[part] = {**result, "environment": where}
        print(part, json.dumps(found[part], indent=2), flush=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
