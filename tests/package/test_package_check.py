"""Packages checked with their weights left on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_data import tiny_plan

from segmed.errors import PackageError
from segmed.manifest import digest
from segmed.package import ModelPackage
from segmed.package.check import check_package

STATE = {
    "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "nothing": torch.empty(0, 4),
    "mask": torch.tensor([True, False]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = ModelPackage("unet", {}, tiny_plan(), STATE, {"data": "cubes"})
    return package.save(tmp_path / "package")


def test_checked_package_is_the_loaded_one_tensor_by_tensor(folder: Path) -> None:
    checked, loaded = check_package(folder), ModelPackage.load(folder)
    assert checked.hash == loaded.hash
    assert checked.provenance == loaded.provenance
    assert set(checked.state) == set(STATE)
    for name, value in STATE.items():
        assert torch.equal(checked.state[name], value)
        assert checked.state[name].dtype == value.dtype


def test_changed_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(PackageError, match="sha256 differs"):
        check_package(folder)


def test_pickle_with_a_matching_digest_is_no_safetensors_file(folder: Path) -> None:
    torch.save(STATE, folder / "model.safetensors")
    card = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    card["files"]["model.safetensors"] = digest(folder / "model.safetensors")
    (folder / "package.json").write_text(json.dumps(card), encoding="utf-8")
    for check in (check_package, ModelPackage.load):
        with pytest.raises(PackageError, match="damaged"):
            check(folder)


def test_hash_of_another_network_is_refused(folder: Path) -> None:
    card = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    card["options"] = {"widths": [1]}
    (folder / "package.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(PackageError, match="was changed after it was written"):
        check_package(folder)


@pytest.mark.slow
def test_memory_is_bounded_by_a_tensor_and_not_by_the_file(tmp_path: Path) -> None:
    state = {f"part{index}": torch.zeros(8, 2**20) for index in range(12)}  # 12 times 32 MB
    ModelPackage("unet", {}, tiny_plan(), state).save(tmp_path / "large")
    code = (
        "import sys; from pathlib import Path\n"
        "from segmed.package.check import check_package\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return int(next(x for x in lines if x.startswith('VmHWM')).split()[1])\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"
        "before = peak(); check_package(Path(sys.argv[1])); print(peak() - before)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert int(done.stdout) < 3 * 32 * 1024
