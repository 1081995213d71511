"""Studies in processes of their own: one that kills its process stops nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segmed.archive import FolderSource, Ledger, Workers, segment_archive
from segmed.errors import ServiceError
from segmed.inference import Predictor

DEADLY = """
import gzip, os, signal, threading
unzip = gzip.open
def open(file, *args, **kwargs):
    is_deadly = os.path.basename(str(getattr(file, "name", file))).startswith("deadly")
    if is_deadly and threading.current_thread().name.startswith("segmed-"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return unzip(file, *args, **kwargs)
gzip.open = open
"""
"""Run at the start of every process: a zlib that crashes on some files once they are segmented."""


@pytest.fixture
def crashing_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes worker processes die of files that are named deadly."""
    (tmp_path / "crash").mkdir()
    (tmp_path / "crash" / "sitecustomize.py").write_text(DEADLY, encoding="utf-8")
    paths = [str(tmp_path / "crash"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.mark.slow  # three worker processes, each of which imports torch
@pytest.mark.usefixtures("crashing_decoder")
def test_study_that_kills_its_process_twice_is_refused_and_the_rest_is_done(
    tmp_path: Path,
    package_folder: Path,
    predictor: Predictor,
    write_nifti: Callable[..., Path],
) -> None:
    for seed, name in enumerate(["a", "deadly", "z"]):
        write_nifti(tmp_path / f"archive/{name}.nii.gz", seed)
    source = FolderSource(tmp_path / "archive")
    workers = Workers((package_folder,), options={"device": "cpu", "engine": "torch"})
    out = tmp_path / "out"
    outcomes = list(segment_archive(source, predictor=workers, out_dir=out))
    assert sorted(outcome.status for outcome in outcomes) == ["done", "done", "refused"]
    refused = next(outcome for outcome in outcomes if outcome.status == "refused")
    assert refused.reason.startswith("killed_process: ")
    assert signal.SIGSEGV.name in refused.reason
    assert not list((out / "segmentations" / ".staging").iterdir())

    (tmp_path / "archive" / "deadly.nii.gz").unlink()
    list(segment_archive(source, predictor=predictor, out_dir=tmp_path / "inside"))
    for path in (tmp_path / "inside" / "segmentations").glob("*.gz"):
        assert (out / "segmentations" / path.name).read_bytes() == path.read_bytes()


IN_PROCESS = """
import sys
from pathlib import Path
from segmed.archive import FolderSource, segment_archive
from segmed.inference import Predictor
from segmed.package import ModelPackage
root, package = Path(sys.argv[1]), ModelPackage.load(Path(sys.argv[2]))
predictor = Predictor(package, device="cpu", engine="torch")
source = FolderSource(root / "archive")
for outcome in segment_archive(source, predictor=predictor, out_dir=root / "out"):
    print(outcome.status, outcome.reason, flush=True)
"""


@pytest.mark.slow  # three starts, and a worker process
@pytest.mark.usefixtures("crashing_decoder")
def test_a_study_that_kills_a_run_without_workers_is_refused_at_the_next_start(
    tmp_path: Path, package_folder: Path, write_nifti: Callable[..., Path]
) -> None:
    for seed, name in enumerate(["a", "deadly", "z"]):
        write_nifti(tmp_path / f"archive/{name}.nii.gz", seed)

    def start() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", IN_PROCESS, str(tmp_path), str(package_folder)],
            capture_output=True,
            text=True,
            timeout=720,
            check=False,
            encoding="utf-8",
        )

    assert start().returncode == -signal.SIGSEGV
    with Ledger(tmp_path / "out/ledger.sqlite", writer=False) as ledger:
        assert ledger.counts()["running"] >= 1
    second = start()
    assert second.returncode == 0, second.stderr
    lines = sorted(second.stdout.splitlines())
    assert [line.split()[0] for line in lines if line.startswith("refused")] == ["refused"]
    assert f"killed_process: its process died twice (signal {signal.SIGSEGV.name}" in lines[-1]
    with Ledger(tmp_path / "out/ledger.sqlite", writer=False) as ledger:
        assert ledger.counts()["done"] == 2
        assert not ledger.suspects()
    third = start()
    assert third.returncode == 0
    assert third.stdout.count("done") == 2
    assert third.stdout.count("killed_process") == 1


RECORDING = """
import gzip, os, pathlib
unzip = gzip.open
def open(file, *args, **kwargs):
    name = os.path.basename(str(getattr(file, "name", file)))
    (pathlib.Path(__file__).parent / f"{name} {os.getpid()}").touch()
    return unzip(file, *args, **kwargs)
gzip.open = open
"""
"""Run at the start of every process but the one of the tests: notes which process read a file."""


def test_only_the_study_in_hand_when_a_run_died_is_tried_in_another_process(
    tmp_path: Path,
    predictor: Predictor,
    write_nifti: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed, name in enumerate(["calm", "suspect"]):
        write_nifti(tmp_path / f"archive/{name}.nii.gz", seed)
    source = FolderSource(tmp_path / "archive")
    list(segment_archive(source, predictor=predictor, out_dir=tmp_path / "out"))
    with Ledger(tmp_path / "out/ledger.sqlite") as ledger:
        [key] = [entry.key for entry in ledger.entries() if "suspect" in str(entry.output)]
        ledger.start(key, run=1)
    for path in (tmp_path / "out/segmentations").glob("*.nii.gz"):
        path.unlink()
    (tmp_path / "readers").mkdir()
    (tmp_path / "readers/sitecustomize.py").write_text(RECORDING, encoding="utf-8")
    paths = [str(tmp_path / "readers"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    outcomes = list(segment_archive(source, predictor=predictor, out_dir=tmp_path / "out"))
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    read = {path.name.split()[0] for path in (tmp_path / "readers").glob("*.nii.gz *")}
    assert read == {"suspect.nii.gz"}


def test_studies_in_hand_when_a_run_is_told_to_stop_are_under_no_suspicion(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    for seed in range(6):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
    run = segment_archive(
        FolderSource(tmp_path / "archive"), predictor=predictor, out_dir=tmp_path / "out"
    )
    next(run)
    run.close()
    with Ledger(tmp_path / "out/ledger.sqlite") as ledger:
        assert ledger.counts()["running"] == 0
        ledger.begin_run("package")
        assert not ledger.suspects()


@pytest.mark.slow  # a worker process, which imports torch
def test_worker_that_cannot_start_stops_the_run_with_its_reason(
    tmp_path: Path, package_folder: Path, write_nifti: Callable[..., Path]
) -> None:
    write_nifti(tmp_path / "archive/a.nii.gz")
    workers = Workers((package_folder,), options={"device": "no such device"})
    run = segment_archive(
        FolderSource(tmp_path / "archive"), predictor=workers, out_dir=tmp_path / "out"
    )
    with pytest.raises(ServiceError, match="cannot start"):
        list(run)


def test_processes_take_the_named_devices_in_turn(
    tmp_path: Path, package_folder: Path, write_nifti: Callable[..., Path]
) -> None:
    for seed in range(4):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
    source = FolderSource(tmp_path / "archive")
    pool = Workers((package_folder,), 2, devices=("cpu", "cpu:0"))
    found = list(segment_archive(source, predictor=pool, out_dir=tmp_path / "out"))
    assert [outcome.status for outcome in found] == ["done"] * 4
    pool = Workers((package_folder,), 2, devices=("abacus:1", "abacus:2"))
    with pytest.raises(ServiceError, match=r"abacus:[12]"):
        list(segment_archive(source, predictor=pool, out_dir=tmp_path / "other"))
