"""A GPU that fails: its process leaves and is replaced, and no study is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_model import tiny_package
from torch import Tensor, nn

from pipelines.cli.arguments import require_devices
from segmed.archive import FolderSource, Ledger, Workers, segment_archive
from segmed.archive.workers.engine import _setup_of
from segmed.archive.workers.setup import Setup
from segmed.archive.writing import Writing
from segmed.errors import ServiceError, UsageError, is_device_fault, is_out_of_memory
from segmed.inference import Predictor
from segmed.inference.engine import TorchEngine
from segmed.outcomes import classify

FAULTY = """
import gzip, os, pathlib, threading
unzip = gzip.open
def open(file, *args, **kwargs):
    name = os.path.basename(str(getattr(file, "name", file)))
    if name.startswith("faulty") and threading.current_thread().name.startswith("segmed-"):
        seen = pathlib.Path(__file__).parent / f"{name}.{os.getpid()}"
        seen.touch()
        if len(list(seen.parent.glob(f"{name}.*"))) <= int(os.environ["FAULTS"]):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return unzip(file, *args, **kwargs)
gzip.open = open
"""
"""Run at the start of every process: the GPU fails in the first processes that take some files."""


@pytest.fixture
def failing_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Makes the GPU of so many worker processes fail with files named faulty."""

    def prepare(faults: int) -> Path:
        folder = tmp_path / "gpu"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(FAULTY, encoding="utf-8")
        paths = [str(folder), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        monkeypatch.setenv("FAULTS", str(faults))
        return folder

    return prepare


@pytest.mark.parametrize(
    ("text", "is_fault", "is_memory"),
    [
        ("CUDA error: an illegal memory access was encountered", True, False),
        ("CUDA error: device-side assert triggered\nCompile with ...", True, False),
        ("CUDA error: uncorrectable ECC error encountered", True, False),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", True, False),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`", True, False),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", False, True),
        ("CUDA error: out of memory", False, True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", False, True),
        ("shape '[2]' is invalid for input of size 3", False, False),
    ],
)
def test_faults_of_a_gpu_are_told_from_scarce_memory(
    text: str, is_fault: bool, is_memory: bool
) -> None:
    error = RuntimeError(text)
    assert (is_device_fault(error), is_out_of_memory(error)) == (is_fault, is_memory)
    found = classify(error, shows_text=False)
    assert found.status == "failed"
    assert found.code == (
        "gpu_fault" if is_fault else "out_of_memory" if is_memory else "unexpected"
    )
    assert "\n" not in found.message


@pytest.mark.slow  # three worker processes, each of which imports torch
@pytest.mark.parametrize(("faults", "status"), [(1, "done"), (2, "failed")])
def test_worker_whose_gpu_failed_is_replaced_and_every_study_ends(
    faults: int,
    status: str,
    failing_gpu: Callable[[int], Path],
    tmp_path: Path,
    package_folder: Path,
    write_nifti: Callable[..., Path],
) -> None:
    seen = failing_gpu(faults)
    for seed, name in enumerate(["a", "faulty", "y", "z"]):
        write_nifti(tmp_path / f"archive/{name}.nii.gz", seed)
    source = FolderSource(tmp_path / "archive")
    workers = Workers((package_folder,), options={"device": "cpu", "engine": "torch"})
    outcomes = list(segment_archive(source, predictor=workers, out_dir=tmp_path / "out"))
    assert sorted(outcome.status for outcome in outcomes) == sorted(["done"] * 3 + [status])
    assert len(list(seen.glob("faulty.nii.gz.*"))) == 2  # two processes took it
    bad = [outcome.reason for outcome in outcomes if outcome.status != "done"]
    assert all(reason.startswith("gpu_fault: in two processes") for reason in bad)
    with Ledger(tmp_path / "out/ledger.sqlite", writer=False) as ledger:
        assert ledger.counts()["running"] == 0
        assert ledger.counts()["done"] == 4 - len(bad)


class Faulty(nn.Module):
    """A network on a GPU that fails at some call, and at every later one."""

    def __init__(self, network: nn.Module, sound_calls: int) -> None:
        super().__init__()
        self.network, self.left = network, sound_calls

    def forward(self, windows: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("CUDA error: unspecified launch failure")
        found: Tensor = self.network(windows)
        return found


def test_run_in_one_process_ends_with_the_fault_and_goes_on_with_the_rest(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    for seed in range(5):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
    source, out = FolderSource(tmp_path / "archive"), tmp_path / "out"
    broken = Predictor(tiny_package(), device="cpu", engine="torch")
    (engine,) = broken.engines
    assert isinstance(engine, TorchEngine)
    engine.network = Faulty(engine.network, 2)
    with pytest.raises(ServiceError, match=r"the GPU failed.* with --workers 1 a process"):
        list(segment_archive(source, predictor=broken, out_dir=out))
    outcomes = list(segment_archive(source, predictor=predictor, out_dir=out))
    assert [outcome.status for outcome in outcomes] == ["done"] * 5


def test_workers_of_a_device_share_its_memory(package_folder: Path) -> None:
    setup = Setup((package_folder,), Writing("nifti", (), "m", "h"), {"engine": "torch"})

    def options(number: int, workers: int, devices: tuple[str, ...]) -> dict[str, object]:
        return _setup_of(setup, number, workers, devices).options

    assert options(0, 1, ()) == {"engine": "torch"}
    assert options(1, 2, ())["gpu_share"] == 0.5
    assert options(1, 2, ("cuda:0", "cuda:1")) == {"engine": "torch", "device": "cuda:1"}
    shares = [options(n, 3, ("cuda:0", "cuda:1")).get("gpu_share", 1.0) for n in range(3)]
    assert shares == [0.5, 1.0, 0.5]


def test_devices_are_named_one_by_one_or_with_commas() -> None:
    assert require_devices(None) == ()
    assert require_devices(["cuda:0,cuda:1", "cpu"]) == ("cuda:0", "cuda:1", "cpu")
    assert require_devices(["cuda:0, cuda:0"]) == ("cuda:0", "cuda:0")
    for wrong in ("abacus", "cuda:0,,cuda:1", "cuda:0;cuda:1"):
        with pytest.raises(UsageError, match="unknown device"):
            require_devices([wrong])
