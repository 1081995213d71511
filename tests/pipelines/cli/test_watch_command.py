"""`segmed watch` at the command line: what cannot work is said in one line, and a study is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_data import tiny_plan
from typer.testing import CliRunner

from pipelines.cli.app import app
from segmed.io.dicom.write import Identity, write_series
from segmed.models import build_model
from segmed.package import ModelPackage

sys.path.append(str(Path(__file__).parents[2] / "archive/watch"))  # for storm.py

import storm

NODE = "dimse://WATCHTEST@127.0.0.1"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    plan = tiny_plan()
    options = plan.networks["unet"].options
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    return ModelPackage("unet", options, plan, network.state_dict()).save(tmp_path / "package")


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    voxels = np.random.default_rng(9).integers(0, 900, (1, 12, 12, 8)).astype(np.float32)
    volume = MetaTensor(torch.from_numpy(voxels), affine=torch.eye(4, dtype=torch.float64))
    return write_series(tmp_path / "sent", volume, identity=Identity(patient_id="P"))


def fault(*words: str | Path) -> str:
    """The one line of an error that ends `segmed watch` with status 2."""
    ended = CliRunner().invoke(app, ["watch", *map(str, words)])
    assert ended.exit_code == 2, ended.output
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("segmed: ")]
    return line


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("scans", "unknown kind of address"),
        ("ftp://host", "unknown kind of address 'ftp'"),
        ("dimse://127.0.0.1:11112", "names no AE title"),
        ("dimse://A_TITLE_THAT_IS_TOO_LONG@127.0.0.1:1", "at most 16 ASCII letters"),
        ("dimse://T@127.0.0.1:11112?form=X", "unknown option of a dimse:// address of a watch"),
    ],
)
def test_address_that_cannot_work_is_named(
    tmp_path: Path, package: Path, address: str, said: str
) -> None:
    assert said in fault(address, "--model", package, "--out", tmp_path / "out")


def test_watch_without_a_model_says_what_would_do(tmp_path: Path) -> None:
    assert "no model: give --model" in fault(f"{NODE}:11112", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("rules: []", "field 'rules'"),
        ("rules: [{name: a, modalities: MR}]", "field 'rules.0.modalities'"),
        ("rules: [{name: a/b}]", "field 'rules.0.name'"),
        ("rules: [{name: a}, {name: A}]", "two rules are called 'a'"),
        ("rules: [{name: inbox}]", "no rule can be called 'inbox'"),
        ("rules: [{name: a, priority: asap}]", "field 'rules.0.priority'"),
        ("rules: [{name: a, description: 't1('}]", "not a regular expression"),
        ("rules: [{name: a, format: gif}]", "unknown output format 'gif'"),
        ("rules: [{name: a, channels: c.yaml}]", "there is no file c.yaml"),
        ("rules: [{name: a, colour: red}]", "field 'rules.0.colour'"),
        ("off_peak: 25-3\nrules: [{name: a}]", "write HH:MM-HH:MM"),
        ("rules: [{name: a, complete: {quiet_s: -1}}]", "field 'rules.0.complete.quiet_s'"),
        ("rules: [", "no YAML file of rules"),
        ("rules: [{name: a, send: 'dimse://host'}]", "names no AE title"),
    ],
)
def test_rule_that_cannot_work_is_named(
    tmp_path: Path, package: Path, rules: str, said: str
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    words = (f"{NODE}:11112", "--model", package, "--rules", path, "--out", tmp_path / "out")
    assert said in fault(*words)


def test_study_that_is_sent_is_segmented_by_each_rule_that_takes_it(
    tmp_path: Path, package: Path, study: list[Path]
) -> None:
    rules, out, port = tmp_path / "rules.yaml", tmp_path / "out", storm.free_port()
    rules.write_text(
        f"rules:\n- {{name: mr, modalities: [MR], models: [{package}], complete: {{quiet_s: 0.5}}}}"
        f"\n- {{name: ct, modalities: [CT], complete: {{quiet_s: 0.5}}}}\n"
    )
    words = ["watch", f"{NODE}:{port}", "--model", str(package), "--rules", str(rules)]
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words, "-o", str(out), "--engine", "torch",
         "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            assert "watching: WATCHTEST" in process.stderr.readline()
            assert storm.send(port, study) == study
            record = json.loads(process.stdout.readline())
            assert (record["route"], record["status"]) == ("mr", "done")
            storm.wait_for(lambda: storm.is_idle(out))
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 130
    assert len(list((out / "mr/segmentations").glob("*.nii.gz"))) == 1
    assert (out / "mr/index.csv").is_file()
    assert not list((out / "ct/segmentations").glob("*.nii.gz"))
