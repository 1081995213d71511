"""A watch of a real Orthanc, by its changes and by DICOMweb: results go back, each study once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for tiny_model.py

from orthanc_server import PASSWORD, USER, Orthanc
from tiny_model import tiny_package

from segmed.archive import Ledger
from segmed.archive.ledger.versions import REPLACES_WITHDRAWN
from segmed.archive.watch.snapshot import read_snapshot

pytestmark = pytest.mark.integration

WITHIN_S = 240.0


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return tiny_package(patch=32, edge_mm=4.0).save(tmp_path / "package")


def address_of(orthanc: Orthanc, kind: str) -> str:
    if kind == "orthanc":
        return f"orthanc://{USER}@127.0.0.1:{orthanc.http_port}"
    return f"dicomweb://{USER}@127.0.0.1:{orthanc.http_port}/dicom-web"


@contextmanager
def watching(orthanc: Orthanc, kind: str, package: Path, out: Path) -> Iterator[None]:
    """`segmed watch` in a process that is killed at the end."""
    service = address_of(orthanc, kind)
    rules = out.with_name("rules.yaml")
    rules.write_text(
        f"rules:\n- {{name: mr, modalities: [MR], description: '^(?!.*mask)', models: [{package}], "
        f"format: dicom-seg, send: '{service}', complete: {{quiet_s: 2}}}}\n",
        encoding="utf-8",
    )
    words = ["watch", address_of(orthanc, kind), "--rules", str(rules), "-o", str(out)]
    words += ["--poll", "0.5", "--days", "30000", "--engine", "torch"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words],
        env={**os.environ, "SEGMED_DICOMWEB_PASSWORD": PASSWORD, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def found_segs(orthanc: Orthanc) -> list[str]:
    query = {"Level": "Instance", "Query": {"Modality": "SEG"}}
    found: list[str] = orthanc.rest("POST", "/tools/find", json=query).json()
    return found


def segs(orthanc: Orthanc) -> int:
    return len(found_segs(orthanc))


def ends(out: Path) -> list[tuple[str, int]]:
    """State and attempts of every study that was not replaced."""
    with Ledger(out / "mr/ledger.sqlite", writer=False) as ledger:
        return [(e.state, e.attempts) for e in ledger.entries() if e.state != "replaced"]


@pytest.mark.parametrize("kind", ["orthanc", "dicomweb"])
def test_stable_studies_are_segmented_once_and_results_go_back(
    tmp_path: Path,
    orthanc: Orthanc,
    package: Path,
    shared_data: Callable[[str], Path],
    kind: str,
) -> None:
    out = tmp_path / "out"
    data = shared_data("hippocampus_dicom")
    with watching(orthanc, kind, package, out):
        orthanc.upload(data / "study1")
        wait_for(lambda: segs(orthanc) == 1)
    orthanc.upload(data / "study2")  # while nobody watches
    with watching(orthanc, kind, package, out):
        wait_for(lambda: segs(orthanc) == 2)
        orthanc.upload(data / "study1")  # again, and unchanged
        orthanc.upload(data / "study3")
        wait_for(lambda: segs(orthanc) == 3)
        wait_for(lambda: bool((found := read_snapshot(out)) and not found.studies))
        time.sleep(6.0)  # the results that went back are stable by now
    assert ends(out) == [("done", 1)] * 3
    assert segs(orthanc) == 3


def test_result_of_a_grown_study_replaces_the_earlier_one_in_orthanc(
    tmp_path: Path, orthanc: Orthanc, package: Path, shared_data: Callable[[str], Path]
) -> None:
    out = tmp_path / "out"
    files = sorted((shared_data("hippocampus_dicom") / "study1").rglob("*.dcm"))
    files.sort(key=lambda path: int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber))
    with watching(orthanc, "orthanc", package, out):
        for path in files[:-1]:
            orthanc.rest("POST", "/instances", data=path.read_bytes())
        wait_for(lambda: segs(orthanc) == 1)
        early = found_segs(orthanc)
        orthanc.rest("POST", "/instances", data=files[-1].read_bytes())
        wait_for(lambda: segs(orthanc) == 1 and found_segs(orthanc) != early)
        wait_for(lambda: ends(out) == [("done", 1)])
    with Ledger(out / "mr/ledger.sqlite", writer=False) as ledger:
        [entry] = ledger.entries(state="done")
    assert REPLACES_WITHDRAWN in entry.measures["notes"]
