"""A storm of `storescu` on a watch that is killed: on the real Orthanc it watches, or on its node.

Slices come late, twice, shuffled and interleaved; SEG and SR go to the real Orthanc.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for tiny_model.py
sys.path.append(str(Path(__file__).parents[1] / "archive/watch"))  # for storm.py

import storm
from fresh_processes import fresh_process
from orthanc_server import PASSWORD, USER, Orthanc, free_port
from tiny_model import tiny_package

from pipelines.runs.watching import WatchJob, open_watch
from segmed.archive import FolderSource, Ledger, RunOptions, segment_archive
from segmed.archive.watch.snapshot import read_snapshot
from segmed.findings.reports import sr_uids
from segmed.formats import SegForm
from segmed.inference import Predictor
from segmed.io.dicom.write import Identity, write_series
from segmed.metatensor import MetaTensor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

WITHIN_S = 600.0


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    if shutil.which("storescu") is None:
        pytest.skip("storescu is missing: apt-get install dcmtk")
    server = Orthanc(tmp_path / "orthanc", stable_age_s=1)
    server.start()
    yield server
    server.stop()


@dataclass
class StormedWatch:
    """`segmed watch` in a process of its own.

    Attributes:
        orthanc: Takes the results.
        model: The package.
        out: Output folder.
        node_port: Port of its own node; 0 to watch the changes of Orthanc instead.
    """

    orthanc: Orthanc
    model: Path
    out: Path
    node_port: int = 0
    process: object = None

    @property
    def pacs(self) -> str:
        return f"orthanc://{USER}@127.0.0.1:{self.orthanc.http_port}"

    @property
    def address(self) -> str:
        if self.node_port:
            return f"dimse://{storm.TITLE}@127.0.0.1:{self.node_port}"
        return self.pacs

    @property
    def receiver(self) -> tuple[str, int]:
        """AE title and port that the storm sends to."""
        if self.node_port:
            return storm.TITLE, self.node_port
        return "SEGMEDPACS", self.orthanc.dicom_port

    def start(self) -> None:
        self.process = fresh_process(run_watch, self.address, self.pacs, self.model, self.out)
        self.process.start()

    def kill(self) -> None:
        os.kill(self.process.pid, 9)
        self.process.join()

    def wait_until_it_listens(self) -> None:
        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.receiver[1])) == 0

        storm.wait_for(listens)


def run_watch(address: str, pacs: str, model: Path, out: Path) -> None:
    """Watch until killed."""
    torch.set_num_threads(1)
    os.environ["SEGMED_DICOMWEB_PASSWORD"] = PASSWORD
    job = WatchJob(
        address,
        out,
        (str(model),),
        format="dicom-seg",
        reports=("sr",),
        send=pacs,
        quiet_s=None if address == pacs else 1.0,
        engine="torch",
        retry_s=1.0,
        poll_s=0.2,
    )
    with open_watch(job) as (watch, _):
        for _ in watch.outcomes():
            pass


def studies_of(folder: Path, images: Path, number: int) -> list[list[Path]]:
    """Real images as studies of patients of their own."""
    found = sorted(path for path in images.glob("*.nii.gz") if path.name[0] != ".")[:number]
    studies = []
    for count, path in enumerate(found):
        image = nib.load(path)
        voxels = torch.from_numpy(np.asarray(image.dataobj, np.float32)[None])
        volume = MetaTensor(voxels, affine=torch.from_numpy(image.affine))
        identity = Identity(patient_id=f"STORM-{count}")
        studies.append(write_series(folder / str(count), volume, identity=identity))
    return studies


def sending(watch: StormedWatch, files: Sequence[Path]) -> subprocess.Popen[bytes]:
    """`storescu` of some instances, under way."""
    title, port = watch.receiver
    command = ["storescu", "-aec", title, "-aet", "STORM", "127.0.0.1", str(port)]
    return subprocess.Popen(
        [*command, *map(str, files)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def store(watch: StormedWatch, files: Sequence[Path]) -> None:
    """Send instances until all are acknowledged, those that were before once more."""
    for _ in range(10):
        watch.wait_until_it_listens()
        if sending(watch, files).wait() == 0:
            return
    raise AssertionError("storescu failed ten times in a row")


def storm_on(
    watch: StormedWatch, studies: Sequence[list[Path]], kills: int, seed: int
) -> dict[str, int]:
    """Send two studies at a time, interleaved and shuffled; some slices twice, some late.

    The watch is killed at moments that cover all its work: while it receives, and while a study
    that paused is segmented, sent, and replaced when the rest of it arrives.

    Returns:
        Number of kills by the moment.
    """
    moments = random.Random(seed)
    pairs = [studies[start : start + 2] for start in range(0, len(studies), 2)]
    parts: list[list[Path]] = []
    for pair in pairs:
        files = [path for study in pair for path in study]
        moments.shuffle(files)
        late, files = files[:3], files[3:]
        size = max(1, len(files) // 4)
        parts += [files[start : start + size] for start in range(0, len(files), size)]
        parts.append([*moments.sample(files, 5), *late])
    killed = {"receiving": 0, "working": 0}
    for left, part in zip(range(len(parts), 0, -1), parts, strict=True):
        due = -(-(kills - sum(killed.values())) // left)
        if watch.node_port and due:
            sender = sending(watch, part)
            time.sleep(moments.uniform(0.02, 0.3))
            watch.kill()
            killed["receiving" if sender.poll() is None else "working"] += 1
            sender.wait()
            watch.start()
            due -= 1
        store(watch, part)
        for _ in range(due):
            time.sleep(moments.uniform(0.2, 4.0))
            watch.kill()
            killed["working"] += 1
            watch.start()
            if watch.node_port:
                watch.wait_until_it_listens()
    return killed


def held(orthanc: Orthanc, modality: str) -> list[pydicom.Dataset]:
    query = {"Level": "Instance", "Query": {"Modality": modality}}
    names = orthanc.rest("POST", "/tools/find", json=query).json()
    files = [orthanc.rest("GET", f"/instances/{name}/file").content for name in names]
    return [pydicom.dcmread(io.BytesIO(content)) for content in files]


def is_settled(watch: StormedWatch, studies: int) -> bool:
    found = read_snapshot(watch.out)
    if found is None or not found.is_alive or found.studies:
        return False
    return len(held(watch.orthanc, "SR")) >= studies


def calm(folder: Path, model: Predictor, out: Path) -> dict[str, bytes]:
    """Pixels of the segmentations of an archive run, by SOPInstanceUID."""
    outcomes = segment_archive(
        FolderSource(folder), predictor=model, out_dir=out, format="dicom-seg",
        options=RunOptions(seg=SegForm(reports=("sr",))),
    )  # fmt: skip
    assert {one.status for one in outcomes} == {"done"}
    found = map(pydicom.dcmread, (out / "segmentations").glob("*.seg.dcm"))
    return {str(one.SOPInstanceUID): one.PixelData for one in found}


@pytest.mark.parametrize("to_node", [False, True], ids=["orthanc", "node"])
@pytest.mark.parametrize(("number", "kills"), [(2, 6), pytest.param(6, 50, marks=pytest.mark.slow)])
def test_each_study_has_one_segmentation_and_one_report_of_its_last_content(
    tmp_path: Path,
    orthanc: Orthanc,
    shared_data: Callable[[str], Path],
    number: int,
    kills: int,
    to_node: bool,
) -> None:
    torch.set_num_threads(1)
    package = tiny_package(patch=32, edge_mm=4.0)
    studies = studies_of(tmp_path / "sent", shared_data("hippocampus") / "imagesTr", number)
    model, port = package.save(tmp_path / "package"), free_port() if to_node else 0
    watch = StormedWatch(orthanc, model, tmp_path / "out", port)
    watch.start()
    try:
        watch.wait_until_it_listens()
        killed = storm_on(watch, studies, kills, seed=7)
        assert sum(killed.values()) == kills
        assert bool(killed["receiving"]) is to_node
        deadline = time.monotonic() + WITHIN_S
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 5.0:  # the results are stable by then, too
            assert time.monotonic() < deadline
            if not is_settled(watch, number):
                quiet_since = time.monotonic()
            time.sleep(0.5)
    finally:
        watch.kill()
    segs, reports = held(orthanc, "SEG"), held(orthanc, "SR")
    expected = calm(tmp_path / "sent", Predictor(package, engine="torch"), tmp_path / "calm")
    assert len(expected) == number
    assert {str(one.SOPInstanceUID): one.PixelData for one in segs} == expected
    assert len(segs) == len(reports) == number
    assert {str(one.SOPInstanceUID) for one in reports} == {sr_uids(uid)[1] for uid in expected}
    with Ledger(watch.out / "ledger.sqlite", writer=False) as ledger:
        entries = [entry for entry in ledger.entries() if entry.state != "replaced"]
    assert [entry.state for entry in entries] == ["done"] * number
