"""Time from a study's last slice to its segmentation in the PACS, through a real Orthanc.

Run: `python -m tests.benchmarks.bench_watch [ARRANGEMENT...] [--studies 30] [--model PACKAGE]`.

- `node`: `storescu` sends to the DICOM node of `segmed watch`, results go to Orthanc;
- `orthanc`: `storescu` sends to Orthanc, whose changes are watched, results go back to it;
- `node_burst`, `orthanc_burst`: the same, all studies one directly after the other.

Studies are hippocampus images as MR series, one every few seconds. Times of quiet are the defaults:
20 s in the node; Orthanc's `StableAge` is set to the same (its own default is 60 s). The clock
starts when the last slice was acknowledged and ends when Orthanc lists the SEG among its changes,
which are asked for every 50 ms. The parts are those of `segmed watch` (`times.csv`). Without
`--model` the network is the planned U-Net of the image set with random weights: only its time
matters. Results join `results/watch.json`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import torch

from segmed.archive.watch.snapshot import read_snapshot
from segmed.archive.watch.times import PARTS
from segmed.io.dicom.write import Identity, write_series
from segmed.metatensor import MetaTensor
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan import make_plan
from tests.integration.orthanc_server import PASSWORD, USER, Orthanc, free_port

RESULTS = Path(__file__).parent / "results" / "watch.json"
REPOSITORY = Path(__file__).resolve().parents[2]
HIPPOCAMPUS = REPOSITORY.parent / "shared" / "data" / "hippocampus" / "imagesTr"
MANIFEST = REPOSITORY / "data_manifests" / "hippocampus_sample.json"
ARRANGEMENTS = ("node", "orthanc", "node_burst", "orthanc_burst")
QUIET_S = 20
WITHIN_S = 600.0
LIMIT_S = 60.0
"""The 95th percentile should be below."""

Record = dict[str, Any]


def planned_model(folder: Path) -> Path:
    """The planned U-Net of the hippocampus set, with random weights."""
    plan = make_plan(MANIFEST)
    options = dict(plan.networks["unet"].options)
    torch.manual_seed(0)
    network = build_model(
        "unet",
        spatial_dims=plan.spatial_dims,
        in_channels=plan.in_channels,
        num_classes=len(plan.labels) + 1,
        **options,
    )
    return ModelPackage("unet", options, plan, network.state_dict()).save(folder)


def write_studies(folder: Path, number: int) -> list[Path]:
    """Folders of so many studies, each of a patient of its own."""
    images = sorted(p for p in HIPPOCAMPUS.glob("*.nii.gz") if not p.name.startswith("."))
    for count, path in enumerate(images[:number]):
        image = nib.load(path)
        voxels = torch.from_numpy(np.asarray(image.dataobj, np.float32)[None])
        volume = MetaTensor(voxels, affine=torch.from_numpy(image.affine))
        identity = Identity(patient_id=f"BENCH-{count:04d}")
        write_series(folder / f"{count:04d}", volume, identity=identity)
    return sorted(folder.iterdir())


@dataclass
class Arrivals(threading.Thread):
    """When Orthanc lists each segmentation, by study; how many there are of each."""

    orthanc: Orthanc
    at: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    is_over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        since = 0
        while not self.is_over.wait(0.05):
            place = {"since": since, "limit": 1000}
            answer = self.orthanc.rest("GET", "/changes", params=place).json()
            now, since = time.time(), int(answer["Last"])
            for change in answer["Changes"]:
                if change["ChangeType"] == "NewInstance":
                    self._look_at(change["ID"], now)

    def _look_at(self, name: str, now: float) -> None:
        tags = self.orthanc.rest("GET", f"/instances/{name}/simplified-tags").json()
        if tags.get("Modality") == "SEG":
            study = str(tags["StudyInstanceUID"])
            self.at.setdefault(study, now)
            self.counts[study] = self.counts.get(study, 0) + 1


@contextmanager
def watching(address: str, model: Path, out: Path, send: str) -> Iterator[None]:
    """`segmed watch` in a process of its own, ready."""
    words = ["watch", address, "--model", str(model), "-o", str(out), "--format", "dicom-seg"]
    words += ["--send", send, "--report", "sr", "--days", "30000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words],
        env={**os.environ, "SEGMED_DICOMWEB_PASSWORD": PASSWORD},
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + WITHIN_S
        while (found := read_snapshot(out)) is None or not found.is_alive:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("segmed watch did not start")
            time.sleep(0.1)
        yield
    finally:
        process.kill()  # as a power failure would end it; nothing is in hand
        process.wait()


def store(folder: Path, title: str, port: int) -> tuple[str, float]:
    """Send a study by `storescu`; its UID and when the last slice was acknowledged."""
    files = sorted(folder.iterdir())
    uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    command = ["storescu", "-aec", title, "-aet", "BENCH", "127.0.0.1", str(port)]
    subprocess.run([*command, *map(str, files)], check=True, capture_output=True)
    return uid, time.time()


def measure(arrangement: str, studies: Sequence[Path], model: Path, every_s: float) -> Record:
    """Latencies of one arrangement."""
    kind, _, burst = arrangement.partition("_")
    with tempfile.TemporaryDirectory() as folder:
        orthanc = Orthanc(Path(folder) / "orthanc", stable_age_s=QUIET_S)
        orthanc.start()
        port = free_port()
        server = f"orthanc://{USER}@127.0.0.1:{orthanc.http_port}"
        address = f"dimse://SEGMED@127.0.0.1:{port}" if kind == "node" else server
        place = ("SEGMED", port) if kind == "node" else ("SEGMEDPACS", orthanc.dicom_port)
        out = Path(folder) / "out"
        arrivals = Arrivals(orthanc)
        try:
            with watching(address, model, out, server):
                arrivals.start()
                sent = {}
                for number, study in enumerate(studies):
                    begun = time.monotonic()
                    uid, sent_at = store(study, *place)
                    sent[uid] = sent_at
                    print(f"  sent {number + 1} of {len(studies)}", flush=True)
                    if not burst:
                        time.sleep(max(0.0, every_s - (time.monotonic() - begun)))
                deadline = time.monotonic() + WITHIN_S
                while len(arrivals.at) < len(studies) and time.monotonic() < deadline:
                    time.sleep(0.1)
                time.sleep(2.0)  # a second segmentation of a study would come now
            with (out / "times.csv").open(encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
        finally:
            arrivals.is_over.set()
            orthanc.stop()
    latencies = [arrivals.at[uid] - moment for uid, moment in sent.items() if uid in arrivals.at]
    return {
        "studies": len(studies),
        "every_s": 0.0 if burst else every_s,
        "segmentations_in_the_pacs": sum(arrivals.counts.values()),
        "latency_s": quantiles(latencies),
        "parts_s": {p: quantiles([float(row[f"{p}_s"]) for row in rows]) for p in PARTS},
        "said_by_watch_s": quantiles([float(row["total_s"]) for row in rows]),
    }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum; percentiles are values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        "median": round(statistics.median_low(ordered), 3),
        "p95": round(ordered[math.ceil(0.95 * len(ordered)) - 1], 3),
        "max": round(ordered[-1], 3),
    }


def main() -> int:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arrangements", nargs="*", default=[])
    parser.add_argument("--studies", type=int, default=30)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between studies")
    parser.add_argument("--model", type=Path)
    given = parser.parse_args()
    missing = [name for name in ("Orthanc", "storescu") if shutil.which(name) is None]
    if missing or not HIPPOCAMPUS.is_dir():
        print(f"skipped: {', '.join(missing) or 'hippocampus images'} not here")
        return 0
    record: Record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or planned_model(Path(folder) / "model")
        studies = write_studies(Path(folder) / "studies", given.studies)
        package = ModelPackage.load(model)
        record["model"] = {
            "architecture": package.architecture,
            "parameters": sum(tensor.numel() for tensor in package.state.values()),
            "trained": given.model is not None,
        }
        record["machine"] = {
            "cores": os.cpu_count(),
            "cores_used": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "quiet_s": QUIET_S,
        }
        for arrangement in given.arrangements or ARRANGEMENTS:
            print(f"== {arrangement}", flush=True)
            record[arrangement] = measure(arrangement, studies, model, given.every)
            print(json.dumps(record[arrangement], indent=1), flush=True)
            RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    figures = {name: record.get(name, {}).get("latency_s", {}) for name in ARRANGEMENTS}
    late = [name for name, found in figures.items() if found.get("p95", 0.0) > LIMIT_S]
    print(f"95th percentile above {LIMIT_S:g} s: {', '.join(late) or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
