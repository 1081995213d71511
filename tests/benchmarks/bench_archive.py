"""Archives: memory over 20,000 studies, the ledger's cost, overhead over the bare predictor.

Run: `python -m tests.benchmarks.bench_archive [PART...] [--studies 20000]`; parts: `ledger`,
`overhead` (hippocampus cases, against `Predictor.predict` on images that are in memory already),
`memory` (small NIfTI studies of different content; resident memory from the 1,000th to the last,
and the rate of a first and of a second run), `memory_openvino` (the same with OpenVINO).
Results join `results/archive.json`. One thread each
for reading, network and writing; PyTorch with one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import torch

from segmed.archive import FolderSource, Ledger, RunOptions, Study, segment_archive
from segmed.archive.study import key_of
from segmed.inference import Predictor
from segmed.inference.vocabulary import EngineName
from segmed.io import read_image
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan.schema import (
    Augmentation,
    Inference,
    Intensity,
    Plan,
    Preprocessing,
    Recipe,
)
from segmed.structures import Channel, LabelClass

RESULTS = Path(__file__).parent / "results" / "archive.json"
HIPPOCAMPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "hippocampus" / "imagesTr"
Record = dict[str, Any]


def a_predictor(
    widths: list[int], patch: tuple[int, int, int], engine: EngineName = "torch"
) -> Predictor:
    """A U-Net with random weights; only its time matters."""
    strides = [[1, 1, 1], *[[2, 2, 2]] * (len(widths) - 1)]
    options = {"widths": widths, "strides": strides, "deep_supervision": False}
    plan = Plan(
        name="bench",
        spatial_dims=3,
        channels=(Channel(name="T1", modality="MR"),),
        labels=(LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2)),
        preprocessing=Preprocessing(
            spacing_mm=(1.0, 1.0, 1.0), image_order=1, intensity=(Intensity(scheme="zscore"),)
        ),
        patch_size=patch,
        networks={},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
        inference=Inference(overlap=0.5),
    )
    torch.manual_seed(0)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    package = ModelPackage("unet", options, plan, network.state_dict())
    return Predictor(package, device="cpu", engine=engine)


def bench_ledger(studies: int) -> Record:
    """Wall and CPU time of everything that the ledger does for one study."""
    number = min(studies, 5000)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger(Path(folder) / "ledger.sqlite") as ledger,
    ):
        run = ledger.begin_run("package")
        wall, cpu = time.perf_counter(), time.process_time()
        for index in range(number):
            study = Study(f"{index:064x}", "nifti", f"{index}.nii.gz", ((Path("x"),),))
            key = key_of(study.content, "package")
            ledger.has(key)
            ledger.done_by_another(study.content, "package", "nifti")
            ledger.enter(study, key, "package", settings="nifti", run=run)
            ledger.start(key, run=run)
            ledger.entry(key)
            ledger.note_output(key, "x.gz", "0" * 64, seconds=1.0, measures={}, is_final=True)
            ledger.entry(key)
        return {
            "studies": number,
            "wall_ms_per_study": (time.perf_counter() - wall) / number * 1e3,
            "cpu_ms_per_study": (time.process_time() - cpu) / number * 1e3,
        }


def bench_overhead(studies: int) -> Record:
    """Wall and CPU time of an archive run over the bare predictor's, on hippocampus cases.

    On a busy machine the CPU times are the ones to look at.
    """
    paths = sorted(p for p in HIPPOCAMPUS.glob("*.nii.gz") if not p.name.startswith("."))
    paths = paths[: min(60, studies)]
    if not paths:
        return {"skipped": "hippocampus images are absent"}
    predictor = a_predictor([16, 32, 64], (40, 56, 40))
    images = [read_image(path) for path in paths]
    predictor.predict(images[0])
    ratios, cpu_ratios = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "archive"
        root.mkdir()
        for path in paths:
            (root / path.name).symlink_to(path)
        warm = Path(folder) / "warm"  # what is imported once, such as the page's parts
        list(run(root, predictor, warm, limit=1))
        for repeat in range(3):
            cpu = time.process_time()
            bare_s = timed(lambda: [predictor.predict(image) for image in images])
            bare_cpu_s = time.process_time() - cpu
            out = Path(folder) / f"out{repeat}"
            cpu = time.process_time()
            whole_s = timed(lambda out=out: list(run(root, predictor, out)))
            cpu_ratios.append((time.process_time() - cpu) / bare_cpu_s)
            ratios.append(whole_s / bare_s)
    return {
        "cases": len(paths),
        "bare_cpu_s_per_case": bare_cpu_s / len(paths),
        "wall_ratio_median_of_3": statistics.median(ratios),
        "cpu_ratio_median_of_3": statistics.median(cpu_ratios),
        "wall_ratios": ratios,
        "cpu_ratios": cpu_ratios,
    }


def bench_memory(studies: int, engine: EngineName = "torch") -> Record:
    """Resident memory while many small studies pass, and the rate."""
    predictor = a_predictor([4, 8], (16, 16, 16), engine)
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "archive"
        make_small_studies(root, studies)
        resident: dict[int, float] = {}
        begun = time.perf_counter()
        for number, outcome in enumerate(run(root, predictor, Path(folder) / "out"), 1):
            assert outcome.status == "done"
            if number % 1000 == 0 or number == studies:
                resident[number] = process.memory_info().rss / 2**20
                print(number, f"{resident[number]:.1f} MiB", flush=True)
        first_s = time.perf_counter() - begun
        second_s = timed(lambda: [None for _ in run(root, predictor, Path(folder) / "out")])
        rows = len(json.loads((Path(folder) / "out" / "outcomes.json").read_text(encoding="utf-8")))
    first_mark = min(resident)
    return {
        "studies": studies,
        "engine": engine,
        "outcomes": rows,
        "rss_mib": resident,
        "growth_mib_from_first_mark": resident[studies] - resident[first_mark],
        "ms_per_study": first_s / studies * 1e3,
        "ms_per_study_of_second_run": second_s / studies * 1e3,
    }


def make_small_studies(root: Path, studies: int) -> None:
    """NIfTI files of 10 x 10 x 8 voxels, each of its own content, a thousand to a folder."""
    voxels = np.random.default_rng(0).integers(0, 900, (10, 10, 8)).astype(np.int16)
    for number in range(studies):
        voxels.ravel()[:2] = divmod(number, 1000)
        folder = root / f"{number // 1000:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{number:06d}.nii.gz")


def run(root: Path, predictor: Predictor, out: Path, *, limit: int | None = None) -> Iterator[Any]:
    """One archive run."""
    options = RunOptions(min_free_bytes=0, limit=limit)
    return segment_archive(FolderSource(root), predictor=predictor, out_dir=out, options=options)


def timed(act: Callable[[], object]) -> float:
    """Wall time of an action, in s."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


PARTS: dict[str, Callable[[int], Record]] = {
    "ledger": bench_ledger,
    "overhead": bench_overhead,
    "memory": bench_memory,
    "memory_openvino": partial(bench_memory, engine="openvino"),
}


def main() -> None:
    """Run the parts that are asked for, and keep what they gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--studies", type=int, default=20_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: Record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for part in given.parts:
        results[part] = PARTS[part](given.studies)
        results[part]["machine"] = f"{platform.machine()}, {psutil.cpu_count()} cores"
        results[part]["load_average"] = psutil.getloadavg()[0]
        print(part, json.dumps(results[part], indent=1))
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
