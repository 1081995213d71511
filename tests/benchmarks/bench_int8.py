"""Int8 beside float32 and eager PyTorch, and the share of the pipeline beside the network.

Run: `python -m tests.benchmarks.bench_int8 [PART...] [--edge 96] [--count 20]`. Parts: `speed`
(one window through the full-width U-Net, turn by turn, the least CPU time of each; bars 1.6 times
OpenVINO in float32 and 5 times eager, where the processor has int8 units), `crops` (hippocampus
cases: read, prepare, inverse and write against the network; bar 0.15) and `volumes` (two of
256x256x128 voxels; bar 0.05). Results join `results/int8.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from segmed.acceleration.network import Quantiser
from segmed.formats import OutputFormat
from segmed.inference import Predictor, Segmentation
from segmed.inference.engine import TorchEngine, softmax
from segmed.inference.int8_units import has_bf16_units, has_int8_units
from segmed.inference.openvino_engine import Conversion, OpenVinoEngine, complete_network
from segmed.inference.pipeline import Pipeline, PipelineItem
from segmed.inference.writing import write_result
from segmed.io.channel_files import CaseFiles
from segmed.metatensor import MetaTensor
from segmed.package.int8 import ChangeLimits, Int8Network, Int8Record, other_precision
from segmed.plan import Topology, plan_networks
from tests.benchmarks.bench_inference import HIPPOCAMPUS, a_package, a_plan
from tests.benchmarks.inference_blend import CPU, Record

RESULTS = Path(__file__).parent / "results" / "int8.json"
ROUNDS = 7
"""Turns of each engine; the least CPU time counts."""


def full_options(edge: int) -> Record:
    """The full planned U-Net with four levels."""
    topology = Topology(kernels=((3,) * 3,) * 4, strides=((1,) * 3, *((2,) * 3,) * 3))
    return plan_networks(
        topology, patch_size=(edge,) * 3, spacing_mm=(1.0,) * 3, size="full"
    )["unet"].options  # fmt: skip


def smooth(shape: Sequence[int], seed: int) -> torch.Tensor:
    """Smooth noise, `[1, 1, *shape]`."""
    coarse = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, tuple(shape), mode="trilinear")


def speed(edge: int = 96) -> Record:
    """One window through each engine, in turns."""
    package = a_package(a_plan(3, (edge,) * 3), full_options(edge))
    network, shape = package.build(), (1, 1, edge, edge, edge)
    windows = torch.cat([smooth(shape[2:], seed) for seed in range(4)]).numpy()
    with tempfile.TemporaryDirectory() as folder:
        quantiser = Quantiser(complete_network(network, softmax), windows, Path(folder))
        made = quantiser.quantise(quantiser.outer_layers, bf16=has_bf16_units())
    record = Int8Record(
        made_from=package.float32_hash,
        sha256="0" * 64,
        cases=1,
        structures=(),
        labels_changed=0.0,
        limits=ChangeLimits(),
        float32_layers=made.float32_layers,
        calibration_cases=1,
        calibration_windows=len(windows),
        seed=0,
        noise_difference=1.0,  # an untrained network: its labels are near one half everywhere
        generated_kernels=made.generated_kernels,
        bf16=made.bf16,
        versions=made.versions,
    )
    conversion = Conversion(package.hash, shape)
    engines = {
        "eager": TorchEngine(network, CPU),
        "openvino": OpenVinoEngine(lambda: network, conversion),
        "int8": OpenVinoEngine(
            lambda: network, conversion, int8=Int8Network(record, made.content)
        ),
    }  # fmt: skip
    window, least = smooth(shape[2:], 9), dict.fromkeys(engines, float("inf"))
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            start = time.process_time()
            engine(window)
            least[name] = min(least[name], time.process_time() - start)
    return {
        "window": edge,
        "parameters": sum(value.numel() for value in network.parameters()),
        "int8_units": has_int8_units(),
        "other_precision": other_precision(made.bf16),
        **{f"{name}_cpu_s": seconds for name, seconds in least.items()},
        "int8_over_openvino": least["openvino"] / least["int8"],
        "int8_over_eager": least["eager"] / least["int8"],
        "openvino_over_eager": least["eager"] / least["openvino"],
    }


class _FolderSink:
    """Results as NIfTI in a folder; keeps the phases of each."""

    format: OutputFormat = "nifti"
    keeps_image = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.phases = {"network": 0.0, "inverse": 0.0}

    def output_for(self, origin: int, image: MetaTensor) -> Path:
        """File of a result."""
        return self.folder / f"{origin}.nii.gz"

    def write(self, origin: int, output: Path, image: MetaTensor, found: Segmentation) -> Path:
        """Write a result and add up its phases."""
        for phase in self.phases:
            self.phases[phase] += found.phases[phase]
        write_result(output, found, self.format, like=image, labels=found.labels)
        return output


def shares(predictor: Predictor, paths: Sequence[Path]) -> Record:
    """Seconds of each stage, one after the other, and all but the network against it."""
    with tempfile.TemporaryDirectory() as folder:
        sink = _FolderSink(Path(folder))
        pipeline = Pipeline(predictor, sink)
        pipeline.segment(PipelineItem(CaseFiles("0", (paths[0],)), 0))  # warm
        sink.phases = dict.fromkeys(sink.phases, 0.0)
        stages = {"read": 0.0, "prepare": 0.0, "write": 0.0}
        for number, path in enumerate(paths, start=1):
            end = pipeline.segment(PipelineItem(CaseFiles(str(number), (path,)), number))
            assert end.error is None, end.error
            for stage in stages:
                stages[stage] += end.seconds[stage]
    beside = sum(stages.values()) + sink.phases["inverse"]
    return {
        "images": len(paths),
        "engine": predictor.engines[0].name,
        "wall_s": {**stages, **sink.phases},
        "beside_over_network": beside / sink.phases["network"],
    }


def crops(count: int = 20) -> Record:
    """Hippocampus cases, full-width network; bar 0.15."""
    paths = sorted(HIPPOCAMPUS.glob("*.nii.gz"))[:count]
    if not paths:
        return {"skipped": "../shared/data/hippocampus is not there"}
    package = a_package(a_plan(3, (40, 56, 40)), full_options(48))
    return shares(Predictor(package, device="cpu"), paths)


def volumes(count: int = 2) -> Record:
    """Volumes of 256x256x128 voxels, full-width network; bar 0.05."""
    package = a_package(a_plan(3, (96, 96, 96)), full_options(96))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.nii.gz" for number in range(count)]
        for number, path in enumerate(paths):
            voxels = smooth((256, 256, 128), number)[0, 0].numpy() * 200 + 500
            nib.Nifti1Image(voxels.astype(np.int16), np.eye(4)).to_filename(path)
        return shares(Predictor(package, device="cpu"), paths)


PARTS: dict[str, Callable[[], Record]] = {"speed": speed, "crops": crops, "volumes": volumes}


def main() -> None:
    """Run the parts asked for and join their results to the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--edge", type=int, default=96, help="window of `speed`")
    parser.add_argument("--count", type=int, help="cases or volumes, fewer than all")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for part in given.parts or PARTS:
        if part == "speed":
            result = speed(given.edge)
        else:
            result = {"crops": crops, "volumes": volumes}[part](
                *([given.count] if given.count else [])
            )
        result["environment"] = {
            "machine": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "load_average": os.getloadavg()[0],
        }
        found[part] = result
        print(part, json.dumps(result, indent=2), flush=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
