"""Archives over many machines: two real Dask workers, and up to 64 replayed ones.

Run: `python -m tests.benchmarks.bench_cluster [PART...] [--studies N]`; parts: `two_workers`
(a real Orthanc behind a line of so many bytes a second, one and then two `dask worker`s on this
machine; I/O alone bounds the run), `replayed` (recorded times of hippocampus studies, and the line
of `two_workers`, in up to 64 workers; source, ledger, queue and records of the driver are real),
`driver` (64 workers that answer at once: studies a second and memory of the driver).
Results join `results/cluster.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from segmed.archive import FolderSource, RunOptions, Study, model_of, segment_archive
from segmed.archive.engine import ArchiveSink, result_of
from segmed.archive.job import Job
from segmed.archive.writing import Writing
from segmed.inference.pipeline import Pipeline, PipelineItem
from segmed.io.digest import sha256_of_file
from tests.benchmarks.bench_archive import HIPPOCAMPUS, a_predictor
from tests.benchmarks.replayed_workers import NumberedSource, ReplayHub, ReplayPool, Times

RESULTS = Path(__file__).parent / "results" / "cluster.json"
REPOSITORY = Path(__file__).resolve().parents[2]
WORKERS = (1, 2, 4, 8, 16, 32, 64)
STUDIES_A_WORKER = 24
LATENCY_S = 0.01
"""Time of a message through the queues of a Dask scheduler, rounded up."""

LINE_BYTES_PER_S = 16_000
"""Of each connection of `two_workers`: so slow that both workers' networks together are idle."""

Record = dict[str, Any]


def bench_two_workers(studies: int) -> Record:
    """Seconds of one and of two Dask workers over a slow line, and equality of their files."""
    sys.path[:0] = [str(REPOSITORY / "tests" / name) for name in ("integration", "")]
    from dask_runs import DaskSite, files, run_seconds  # noqa: PLC0415 - of the integration tests
    from slow_pacs import images_for_pacs, slow_pacs  # noqa: PLC0415 - starts a real PACS

    number = min(studies, 24)
    with tempfile.TemporaryDirectory() as name, DaskSite(Path(name)) as site:
        images = images_for_pacs(HIPPOCAMPUS.parent, number)
        (site.folder / "pacs").mkdir()
        with slow_pacs(images, site.folder / "pacs", LINE_BYTES_PER_S) as pacs:
            outs = {n: site.run_with(n, pacs, images[:4]) for n in (1, 2)}
            alone = site.run_alone(pacs, images[:4])
        seconds = {n: run_seconds(out) for n, out in outs.items()}
        files = [files(out) for out in (*outs.values(), alone)]
        assert files[0] == files[1] == files[2]
        assert len(files[0]) == number + 4
    return {
        "studies": number,
        "line_bytes_per_s": LINE_BYTES_PER_S,
        "one_s": seconds[1],
        "two_s": seconds[2],
        "times": seconds[1] / seconds[2],
        "equal_files": len(files[0]),
    }


def bench_replayed(studies: int) -> Record:
    """Studies a second with up to 64 replayed workers, from files and over a line."""
    recorded, measures = recorded_times(min(studies, 30))
    known = (
        json.loads(RESULTS.read_text(encoding="utf-8")).get("two_workers")
        if RESULTS.exists()
        else None
    )
    line_s = 2 * known["one_s"] / known["studies"] if known else 4.0
    over_line = [{**times, "fetch": line_s} for times in recorded]
    mean = {key: sum(t[key] for t in recorded) / len(recorded) for key in recorded[0]}
    found: Record = {"recorded_mean_s": {**mean, "fetch": line_s}, "latency_s": LATENCY_S}
    for kind, times, most in (("files", recorded, 64), ("line", over_line, 64)):
        rates = {}
        for workers in (n for n in WORKERS if n <= most):
            number = STUDIES_A_WORKER * workers
            seconds = replay(number, ReplayHub(workers, times, measures, LATENCY_S))
            rates[workers] = number / seconds
            print(kind, workers, f"{rates[workers]:.2f} studies/s", flush=True)
        found[kind] = {
            "studies_per_s": rates,
            "times_one": {workers: rate / rates[1] for workers, rate in rates.items()},
        }
    return found


def bench_driver(studies: int) -> Record:
    """Studies a second, and resident memory, of a driver whose 64 workers answer at once."""
    _, measures = recorded_times(1)
    hub = ReplayHub(64, [{}], measures, 0.0)
    resident: dict[int, float] = {}
    process = psutil.Process()
    step = max(1, studies // 20)

    def look(number: int) -> None:
        if number % step == 0:
            resident[number] = process.memory_info().rss / 2**20

    seconds = replay(studies, hub, look)
    marks = sorted(resident)
    return {
        "studies": studies,
        "studies_per_s": studies / seconds,
        "most_in_hand": hub.most_in_hand,
        "rss_mib": resident,
        "growth_mib_from_first_mark": resident[marks[-1]] - resident[marks[0]],
    }


def replay(studies: int, hub: ReplayHub, on_number: Callable[[int], None] | None = None) -> float:
    """Seconds of a run whose workers are replayed, its records at the end excluded."""
    with tempfile.TemporaryDirectory() as name:
        package = a_predictor([4, 8], (16, 16, 16)).packages[0].save(Path(name) / "package")
        begun, ended = time.perf_counter(), 0.0
        for number, outcome in enumerate(
            segment_archive(
                NumberedSource(studies),
                predictor=ReplayPool((package,), hub),
                out_dir=Path(name) / "out",
                options=RunOptions(min_free_bytes=0),
            ),
            1,
        ):
            assert outcome.status == "done", outcome.reason
            if number == 1:
                begun = begun if hub.recorded[0] else time.perf_counter()
            ended = time.perf_counter()
            if on_number is not None:
                on_number(number)
    return ended - begun


def recorded_times(studies: int) -> tuple[list[Times], dict[str, Any]]:
    """Seconds of the stages of real hippocampus studies, and the measures of one of them."""
    predictor = a_predictor([16, 32, 64], (40, 56, 40))
    model = model_of(predictor.packages)
    found = [s for s in FolderSource(HIPPOCAMPUS).studies() if isinstance(s, Study)][:studies]
    times: list[Times] = []
    measures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        writing = Writing("nifti", model.labels, model.name, model.hash)
        pipeline = Pipeline(predictor, ArchiveSink(writing), trusted=True)
        items = [
            PipelineItem(s.case, Job(s.name, s, Path(folder) / f"{s.name}.nii.gz")) for s in found
        ]
        for study, future in zip(found, pipeline.run(iter(items)), strict=True):
            end = future.result()
            measures = result_of(end).measures
            begun = time.perf_counter()
            for path in study.files:
                sha256_of_file(path)
            identify = time.perf_counter() - begun
            spent = end.seconds
            times.append(
                {
                    "identify": identify,
                    "read": spent["read"] + spent["prepare"],
                    "predict": spent["predict"],
                    "write": spent["write"],
                }
            )
    return times, measures


PARTS: dict[str, Callable[[int], Record]] = {
    "two_workers": bench_two_workers,
    "replayed": bench_replayed,
    "driver": bench_driver,
}


def main() -> None:
    """Run the parts that are asked for, and keep what they gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--studies", type=int, default=20_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for part in given.parts:
        record = PARTS[part](given.studies)
        record["machine"] = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores used"
        record["load_average"] = psutil.getloadavg()[0]
        print(part, json.dumps(record, indent=1))
        results: Record = (
            json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        )
        results[part] = record
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
