"""A storm of `storescu` on a real Orthanc whose changes are watched by a process that is killed.

Slices come late, twice, shuffled and interleaved; SEG and SR go back to the same Orthanc.
"""

from __future__ import annotations

import io
import os
import random
import shutil
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

from fresh_processes import fresh_process
from orthanc_server import PASSWORD, USER, Orthanc
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
class OrthancWatch:
    """`segmed watch orthanc://` in a process of its own."""

    orthanc: Orthanc
    model: Path
    out: Path
    process: object = None

    @property
    def address(self) -> str:
        return f"orthanc://{USER}@127.0.0.1:{self.orthanc.http_port}"

    def start(self) -> None:
        self.process = fresh_process(watch_orthanc, self.address, self.model, self.out)
        self.process.start()

    def kill(self) -> None:
        os.kill(self.process.pid, 9)
        self.process.join()


def watch_orthanc(address: str, model: Path, out: Path) -> None:
    """Watch until killed."""
    torch.set_num_threads(1)
    os.environ["SEGMED_DICOMWEB_PASSWORD"] = PASSWORD
    job = WatchJob(
        address,
        out,
        (str(model),),
        format="dicom-seg",
        reports=("sr",),
        send=address,
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


def store(orthanc: Orthanc, files: Sequence[Path]) -> None:
    command = ["storescu", "-aec", "SEGMEDPACS", "-aet", "STORM", "127.0.0.1"]
    subprocess.run(
        [*command, str(orthanc.dicom_port), *map(str, files)], check=True, capture_output=True
    )


def storm_on(watch: OrthancWatch, studies: Sequence[list[Path]], kills: int, seed: int) -> None:
    """Send two studies at a time, interleaved and shuffled; some slices twice, some late.

    The watch is killed at moments that cover all its work: a study that paused is stable, so that
    it is segmented, sent, and replaced when the rest of it arrives.
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
    killed = 0
    for left, part in zip(range(len(parts), 0, -1), parts, strict=True):
        store(watch.orthanc, part)
        for _ in range(-(-(kills - killed) // left)):
            time.sleep(moments.uniform(0.2, 4.0))
            watch.kill()
            killed += 1
            watch.start()


def held(orthanc: Orthanc, modality: str) -> list[pydicom.Dataset]:
    query = {"Level": "Instance", "Query": {"Modality": modality}}
    names = orthanc.rest("POST", "/tools/find", json=query).json()
    files = [orthanc.rest("GET", f"/instances/{name}/file").content for name in names]
    return [pydicom.dcmread(io.BytesIO(content)) for content in files]


def is_settled(watch: OrthancWatch, studies: int) -> bool:
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


@pytest.mark.parametrize(("number", "kills"), [(2, 6), pytest.param(6, 50, marks=pytest.mark.slow)])
def test_each_study_has_one_segmentation_and_one_report_of_its_last_content(
    tmp_path: Path,
    orthanc: Orthanc,
    shared_data: Callable[[str], Path],
    number: int,
    kills: int,
) -> None:
    torch.set_num_threads(1)
    package = tiny_package(patch=32, edge_mm=4.0)
    studies = studies_of(tmp_path / "sent", shared_data("hippocampus") / "imagesTr", number)
    watch = OrthancWatch(orthanc, package.save(tmp_path / "package"), tmp_path / "out")
    watch.start()
    try:
        storm_on(watch, studies, kills, seed=7)
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
