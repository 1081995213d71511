"""Networks of MONAI, registered by a user, go through training, comparison, registry and reload."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from documentation import REPOSITORY

import segmed
from segmed import architectures
from segmed.errors import ModelError
from segmed.manifest import Manifest, read_manifest
from segmed.plan import Plan, make_plan, read_plan, write_plan
from segmed.training import Budget

needs_einops = pytest.mark.skipif(
    importlib.util.find_spec("einops") is None, reason="SwinUNETR of MONAI needs einops"
)

MONAI_NETWORKS = REPOSITORY / "docs" / "examples" / "monai_networks.py"
SAMPLE = REPOSITORY / "data_manifests" / "hippocampus_sample.json"


def few_steps(plan: Plan) -> Plan:
    """The plan with epochs of two steps."""
    recipe = plan.recipe.model_copy(update={"iterations_per_epoch": 2})
    return plan.model_copy(update={"recipe": recipe})


@pytest.fixture
def few_cases() -> Manifest:
    """Six cases of the sample in two folds."""
    manifest = read_manifest(SAMPLE)
    cases = [
        case.model_copy(update={"fold": index % 2})
        for index, case in enumerate(manifest.training[:6])
    ]
    return manifest.model_copy(update={"training": tuple(cases)})


@pytest.mark.parametrize(
    ("name", "dims"), [("segresnet", 3), pytest.param("swin_unetr", 2, marks=needs_einops)]
)
def test_network_of_monai_is_trained_segments_and_is_reloaded(
    name: str,
    dims: int,
    few_cases: Manifest,
    tmp_path: Path,
    monai_networks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = few_steps(make_plan(few_cases, spatial_dims=dims))
    assert {"segresnet", "swin_unetr", "unet"} <= set(plan.networks)
    write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").networks == plan.networks
    package = segmed.train(
        few_cases, plan, architecture=name, fold=0, budget=Budget(epochs=1),
        out=tmp_path / "run", device="cpu",
    )  # fmt: skip
    assert package.architecture == name
    image = few_cases.image_paths(few_cases.training[0])[0]
    found = segmed.Predictor(package, device="cpu", engine="torch").predict(image)
    assert set(found.label.unique().tolist()) <= {0, 1, 2}

    registered = dict(architectures._REGISTERED)
    monkeypatch.setattr(architectures, "_REGISTERED", {})
    unregistered = segmed.ModelPackage.load(tmp_path / "run" / "package")
    with pytest.raises(ModelError, match=rf"{name!r} is not registered here.*entry-point group"):
        unregistered.build()
    monkeypatch.setattr(architectures, "_REGISTERED", registered)
    again = segmed.Predictor.load(tmp_path / "run" / "package", device="cpu", engine="torch")
    assert torch.equal(again.predict(image).label.as_tensor(), found.label.as_tensor())


def announce(folder: Path, name: str, value: str) -> dict[str, str]:
    """An installed package that announces an architecture, and the environment that finds it."""
    info = folder / "my_networks-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-networks\nVersion: 1.0\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(
        f"[{architectures.GROUP}]\n{name} = {value}\n", encoding="utf-8"
    )
    paths = [str(folder), str(REPOSITORY)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def segmed_command(
    *words: object, env: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, words)],
        capture_output=True, text=True, check=False, env=env, cwd=cwd, timeout=1200,
        encoding="utf-8",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "module", "message"),
    [
        ("absent_networks", "", "cannot be imported: No module named 'absent_networks'"),
        ("my_networks", "import nowhere", "cannot be imported: No module named 'nowhere'"),
        ("my_networks:setup", "", "cannot be imported"),
        ("my_networks", "x = 1", "does not register it: call segmed.register_architecture('net'"),
        ("my_networks:setup", "def setup(): pass", "does not register it"),
    ],
)
def test_entry_point_that_registers_nothing_is_named(
    value: str, module: str, message: str, tmp_path: Path
) -> None:
    env = announce(tmp_path / "site", "net", value)
    (tmp_path / "site" / "my_networks.py").write_text(module, encoding="utf-8")
    code = (
        "from segmed.models import build_model, list_models\n"
        "assert list_models()[-1] == 'net'\n"
        "build_model('net', spatial_dims=2, in_channels=1, num_classes=2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, env=env, timeout=300, encoding="utf-8",
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert "ModelError: " in last
    assert "'net'" in last
    assert message in last


def test_listing_names_imports_no_announced_module(tmp_path: Path) -> None:
    env = announce(tmp_path / "site", "net", "my_networks")
    (tmp_path / "site" / "my_networks.py").write_text(
        "raise SystemExit('imported')", encoding="utf-8"
    )
    done = segmed_command("train", "M.json", "--model", "nett", "--budget", "1m", env=env,
                          cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert "imported" not in done.stderr


@pytest.mark.slow
def test_announced_network_is_compared_registered_and_segments(
    few_cases: Manifest, tmp_path: Path
) -> None:
    from segmed.manifest import rebase, write_manifest  # noqa: PLC0415 - only this slow test

    env = announce(tmp_path / "site", "segresnet", "monai_networks")
    shutil.copy(MONAI_NETWORKS, tmp_path / "site")
    write_manifest(rebase(few_cases, tmp_path), tmp_path / "M.json")
    done = segmed_command(
        "compare", "M.json", "--models", "unet,segresnet", "--folds", "0", "--epochs", 1,
        "--device", "cpu", "-o", "study", "--register", "hippo", env=env, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "study" / "comparison.json").read_text(encoding="utf-8"))
    assert set(record["architectures"]) == {"unet", "segresnet"}
    package = tmp_path / "study" / "runs" / "segresnet" / "fold0" / "package"
    done = segmed_command("model", "register", package, "--name", "mine", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    image = few_cases.image_paths(few_cases.training[0])[0]
    call = ("predict", image, "--model", "models:/mine/1", "--device", "cpu")
    done = segmed_command(*call, "-o", "out", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1

    bare = {**env, "PYTHONPATH": str(REPOSITORY)}
    done = segmed_command(*call, "-o", "out2", env=bare, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "architecture 'segresnet' is not registered here" in done.stderr
    assert "entry-point group 'segmed.architectures'" in done.stderr
