"""`docs/measured.md`: what the recorded benchmarks say, in one page, made from their JSON files.

Run: `python -m tests.benchmarks.measured`. Nothing on the page is typed in by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.training_table import PEER, Record, records

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "measured.md"

HEAD = """# Measured

Made from the JSON files in `tests/benchmarks/results` by `python -m tests.benchmarks.measured`;
`make bench` measures them anew. All on one machine with 2 CPU cores and no GPU, each beside the
named peer in the same run; nothing here was run on a GPU. "N times" is N times as fast as the peer.

| what | figure | beside |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [
        *training(),
        *inference(),
        *int8(),
        *freed_memory(),
        *preparation(),
        *scores(),
        *tracking(),
        *archives(),
        *clusters(),
        *watches(),
    ]
    return HEAD + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


Row = tuple[str, str, str]


def read(name: str) -> dict[str, Any]:
    """One record."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def training() -> list[Row]:
    """Dice after a time, and what a step costs."""
    runs = records()
    rows: list[Row] = []
    for run in sorted(runs, key=lambda run: (run["cpu_seconds"], run["learner"], run["seed"])):
        if run["data"] != "Hippocampus" or run["learner"] == PEER or run["cpu_seconds"] < 300:
            continue
        what = (
            f"hippocampus, `{run['learner']}`, {run['cpu_seconds']:.0f} CPU s, seed {run['seed']}"
        )
        rows.append((what, f"Dice {run['delivered_mean_dice']:.3f}", _peer_of(run, runs)))
    for size, step in read("training")["step"].items():
        if isinstance(step, dict):
            share = f"{step['rate_against_bare_wall']:.2f} of its rate"
            rows.append((f"training step, {size} U-Net", share, "bare forward and backward"))
    return rows


def _peer_of(run: Record, runs: list[Record]) -> str:
    same = [
        other["points"][-1]["mean_dice"]
        for other in runs
        if other["learner"] == PEER
        and run["learner"] == "unet"
        and (other["cpu_seconds"], other["seed"]) == (run["cpu_seconds"], run["seed"])
    ]
    return f"plain MONAI loop: {same[0]:.3f}" if same else ""


def inference() -> list[Row]:
    """Window loop, engines, many small images, one large one."""
    record = read("bench_inference")
    rows: list[Row] = []
    for classes, blend in record["blend"].items():
        if isinstance(blend, dict) and "cpu_ratio" in blend:
            times = f"{1 / blend['cpu_ratio']:.1f} and {1 / blend['cpu_ratio_nnunet']:.1f} times"
            named = classes.replace("_", " ")
            rows.append((f"window bookkeeping, {named}", times, "MONAI, nnU-Net"))
            floor = blend["segmed"]["cpu_s"] / blend["one_addcmul_a_window"]["cpu_s"]
            beside = "one weighted addition a window by PyTorch"
            rows.append((f"window bookkeeping, {named}", f"{floor:.2f} of its cost", beside))
    for part, what in (("cases", "hippocampus cases"), ("volumes", "volumes of 256x256x128")):
        found = record[part]["openvino"]
        named = f"{record[part][part]} {what}, file to file, OpenVINO"
        times = f"{found['wall_over_bare']:.2f} of its time"
        rows.append((named, times, "bare forward passes of the windows"))
    times = f"{record['cases']['archive']['wall_over_bare']:.2f} of its time"
    named = f"the same {record['cases']['cases']} cases as an archive, OpenVINO"
    rows.append((named, times, "bare forward passes of the windows"))
    for name, engine in record["engines"].items():
        if isinstance(engine, dict) and "speed_up" in engine:
            rows.append((f"OpenVINO, `{name}`", f"{engine['speed_up']:.1f} times", "eager PyTorch"))
    rasters = record["rasters"]
    what = f"{rasters['images']} PNG images of 256x256"
    rows.append((what, f"{rasters['ratio']:.0f} times", "one process a file"))
    large = record["big"]
    what = f"peak memory, {'x'.join(map(str, large['shape']))} voxels, {large['classes']} classes"
    figure = f"{large['peak_gb']:.2f} GiB, {large['peak_over_forecast']:.2f} of the forecast"
    rows.append((what, figure, "what `--dry-run` says beforehand"))
    return rows


def int8() -> list[Row]:
    """Int8 beside float32, and the pipeline beside the network; nothing before it is measured."""
    if not (RESULTS / "int8.json").exists():
        return []
    record = read("int8")
    rows: list[Row] = []
    if "speed" in record:
        found = record["speed"]
        what = f"int8, full-width U-Net, window of {found['window']}^3"
        rows.append((what, f"{found['int8_over_openvino']:.1f} times", "OpenVINO in float32"))
        rows.append((what, f"{found['int8_over_eager']:.1f} times", "eager PyTorch"))
    for part, what in (("crops", "hippocampus cases"), ("volumes", "volumes of 256x256x128")):
        if "beside_over_network" in record.get(part, {}):
            share = f"{record[part]['beside_over_network']:.3f} of its time"
            named = f"read, prepare, inverse and write, {record[part]['images']} {what}"
            rows.append((named, share, f"the network ({record[part]['engine']})"))
    return rows


def freed_memory() -> list[Row]:
    """Eager PyTorch that keeps what it frees, beside PyTorch as it comes."""
    record = read("freed_memory")
    return [
        (f"freed memory kept: {name}", f"{found['times']:.2f} times", "PyTorch as it comes")
        for name, found in record.items()
        if name != "environment"
    ]


def preparation() -> list[Row]:
    """Resampling and scanning."""
    summary = read("bench_preprocessing")["summary"]
    peers = {"monai": "MONAI", "nnunet": "nnU-Net", "simpleitk": "SimpleITK", "scipy": "scipy"}
    rows: list[Row] = [
        ("preprocessing of a CT", f"{summary[f'speed_over_{key}']:.1f} times", name)
        for key, name in peers.items()
    ]
    readers = {
        name: r["files_per_cpu_second"] for name, r in read("intake_scan")["readers"].items()
    }
    own = readers.pop("segmed scan")
    for name, rate in readers.items():
        rows.append(("scan of DICOM files", f"{own / rate:.1f} times", name))
    return [*rows, *transforms()]


def transforms() -> list[Row]:
    """Steps of the preparation beside MONAI's transforms of the same meaning."""
    rows = []
    for name, step in read("transforms")["steps"].items():
        bits = "the same values to the bit" if step["has_equal_bits"] else "other rounding or grid"
        rate = f"{step['theirs_ms'] / step['ours_ms']:.3g} times"
        rows.append((f"transform: {name}", rate, f"MONAI's {step['peer']} ({bits})"))
    return rows


def scores() -> list[Row]:
    """The whole table of metrics of a case."""
    rows: list[Row] = []
    for case, record in read("metrics")["cases"].items():
        for peer in ("monai", "surface_distance"):
            if peer in record:
                told = f"{record[peer]['ratio']:.1f} times"
                rows.append((f"metrics of a case, {case}", told, peer.replace("_", "-")))
    return rows


def tracking() -> list[Row]:
    """Cost of logging."""
    record = read("tracking")
    share = f"{record['training']['share_percent']:.2f} %"
    waited = record["waited_ms_an_epoch"]
    times = f"{waited['mlflow.log_metrics'] / waited['segmed']:.0f} times"
    return [
        ("logging to MLflow, share of a training of a minute", share, ""),
        ("waiting for MLflow an epoch", times, "`mlflow.log_metrics`"),
    ]


def archives() -> list[Row]:
    """Cost of the ledger and the run, beside the network."""
    record = read("archive")
    overhead = record["overhead"]
    growths = [
        (
            f"growth of memory over {memory['studies']} studies, engine {memory['engine']}",
            f"{memory['growth_mib_from_first_mark']:.0f} MiB",
            "",
        )
        for memory in ({"engine": "torch", **record["memory"]}, record["memory_openvino"])
    ]
    return [
        (
            "archive run, CPU time a study",
            f"{overhead['cpu_ratio_median_of_3']:.2f} of its cost",
            "the bare Predictor",
        ),
        ("ledger, a study", f"{record['ledger']['wall_ms_per_study']:.2f} ms", ""),
        *growths,
    ]


def clusters() -> list[Row]:
    """Workers of a Dask cluster: real ones, and up to 64 with recorded times."""
    record = read("cluster")
    two, replayed = record["two_workers"], record["replayed"]
    rows = [
        (
            f"two Dask workers, {two['studies']} studies over a slow line",
            f"{two['times']:.2f} times",
            "one worker",
        )
    ]
    for kind, what in (("files", "files"), ("line", "a slow line")):
        times = replayed[kind]["times_one"]["64"]
        rows.append((f"64 replayed workers, {what}", f"{times:.1f} times", "one worker"))
    return rows


def watches() -> list[Row]:
    """From the last slice of a study to its segmentation in Orthanc."""
    record = read("watch")
    rows: list[Row] = []
    for name in ("node", "orthanc", "node_burst", "orthanc_burst"):
        if name not in record:
            continue
        found = record[name]
        rate = f"one every {found['every_s']:g} s" if found["every_s"] else "all at once"
        way = "our node" if name.startswith("node") else "Orthanc"
        what = f"last slice to SEG in the PACS, {found['studies']} studies by {way}, {rate}"
        latency = found["latency_s"]
        figure = f"median {latency['median']:.0f} s, 95 % within {latency['p95']:.0f} s"
        quiet = record["machine"]["quiet_s"]
        rows.append((what, figure, f"{quiet} s of them are the time of quiet"))
    return rows


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
