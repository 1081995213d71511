"""`segmed watch` at the command line: what cannot work is said in one line, and a study is done."""

from __future__ import annotations

import json
import os
import signal
import socket
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
    assert not Path(words[list(words).index("--out") + 1]).exists()  # nothing is left behind
    return line


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("scans", "unknown kind of address"),
        ("ftp://host", "unknown kind of address 'ftp'"),
        ("orthanc://u:secret@host", "the address carries a password"),
        ("dicomweb://", "names no host"),
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


def test_port_that_is_in_use_is_named(tmp_path: Path, package: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"{NODE}:{other.getsockname()[1]}"
        line = fault(address, "--model", package, "--out", tmp_path / "out")
    assert "cannot be listened on (Address already in use); end the program that uses" in line


def test_model_that_is_missing_or_damaged_is_named_before_anything_is_written(
    tmp_path: Path, package: Path
) -> None:
    missing, damaged = tmp_path / "none.zip", tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "weights.safetensors").write_bytes(b"none")
    rules = tmp_path / "rules.yaml"
    for model in (missing, damaged):
        rules.write_text(
            f"rules: [{{name: a}}, {{name: b, models: ['{model}']}}]", encoding="utf-8"
        )
        words = (f"{NODE}:{storm.free_port()}", "--out", tmp_path / "out")
        assert model.name in fault(*words, "--model", model)
        assert model.name in fault(*words, "--model", package, "--rules", rules)


def test_file_of_rules_that_is_missing_is_named(tmp_path: Path, package: Path) -> None:
    words = (f"{NODE}:11112", "--model", package, "--rules", tmp_path / "r.yaml")
    assert "r.yaml" in fault(*words, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("rules: []", "field 'rules'"),
        ("rules: [{name: a, modalities: MR}]", "field 'rules.0.modalities'"),
        ("rules: [{name: a/b}]", "field 'rules.0.name'"),
        ("rules: [{name: a}, {name: A}]", "two rules are called 'a'"),
        ("rules: [{name: inbox}]", "no rule can be called 'inbox'"),
        ("rules: [{name: Server}]", "no rule can be called 'server'"),
        ("rules: [{name: voided}]", "no rule can be called 'voided'"),
        ("rules: [{name: a, priority: asap}]", "field 'rules.0.priority'"),
        ("rules: [{name: a, description: 't1('}]", "not a regular expression"),
        ("rules: [{name: a, format: gif}]", "unknown output format 'gif'"),
        ("rules: [{name: a, channels: c.yaml}]", "there is no file c.yaml"),
        ("rules: [{name: a, reports: [sr]}]", "--report sr refers to a DICOM segmentation"),
        ("rules: [{name: a, format: dicom-seg, seg: flat}]", "field 'rules.0.seg'"),
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
    path.write_text(rules, encoding="utf-8")
    words = (f"{NODE}:11112", "--model", package, "--rules", path, "--out", tmp_path / "out")
    assert said in fault(*words)


def test_study_that_is_sent_is_segmented_by_each_rule_that_takes_it(
    tmp_path: Path, package: Path, study: list[Path]
) -> None:
    rules, out, port = tmp_path / "rules.yaml", tmp_path / "out", storm.free_port()
    rules.write_text(
        f"rules:\n- {{name: mr, modalities: [MR], models: [{package}], complete: {{quiet_s: 0.5}}, "
        "format: dicom-seg, seg: labelmap, reports: [sr]}"
        f"\n- {{name: ct, modalities: [CT], complete: {{quiet_s: 0.5}}}}\n",
        encoding="utf-8",
    )
    words = ["watch", f"{NODE}:{port}", "--model", str(package), "--rules", str(rules)]
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words, "-o", str(out), "--engine", "torch",
         "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
     encoding="utf-8") as process:  # fmt: skip
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
    written = [path.name for path in (out / "mr/segmentations").glob("*.dcm")]
    assert len([name for name in written if name.endswith(".seg.dcm")]) == 1
    assert len([name for name in written if name.endswith(".sr.dcm")]) == 1
    assert (out / "mr/index.csv").is_file()
    assert not list((out / "ct/segmentations").glob("*.nii.gz"))


def tried(tmp_path: Path, package: Path, path: Path, rules: str) -> tuple[int, str]:
    """Exit status and lines of `--try`; nothing is written."""
    file = tmp_path / "rules.yaml"
    file.write_text(rules, encoding="utf-8")
    words = [f"{NODE}:11112", "--model", package, "--rules", file, "--out", tmp_path / "new"]
    ended = CliRunner().invoke(app, ["watch", *map(str, words), "--try", str(path)])
    assert not (tmp_path / "new").exists()
    return ended.exit_code, ended.output


def test_try_says_which_rule_takes_a_study_and_what_comes_of_it(
    tmp_path: Path, package: Path, study: list[Path]
) -> None:
    rules = "rules: [{name: ct, modalities: [CT]}, {name: mr, modalities: [MR], priority: urgent}]"
    status, said = tried(tmp_path, package, study[0].parent, rules)
    assert status == 0, said
    assert "rule ct does not take it: series 1: modality MR instead of CT" in said
    assert "rule mr takes it: urgent, when nothing arrived for 20 s" in said
    assert "would be segmented, as mr/segmentations/" in said


def test_try_of_one_file_leaves_the_series_to_intake(
    tmp_path: Path, package: Path, study: list[Path]
) -> None:
    status, said = tried(tmp_path, package, study[3], "rules: [{name: mr, priority: off-peak}]")
    assert status == 0, said
    assert "between 20:00-06:00" in said
    assert "intake judges its series when the study is complete" in said


def test_try_of_what_would_be_refused_or_left_alone_ends_with_1(
    tmp_path: Path, package: Path, study: list[Path]
) -> None:
    status, said = tried(tmp_path, package, study[0].parent, "rules: [{name: a, body_part: KNEE}]")
    assert (status, "no rule takes it" in said) == (1, True), said
    study[4].unlink()
    status, said = tried(tmp_path, package, study[0].parent, "rules: [{name: a}]")
    assert (status, "would be refused: missing_slice" in said) == (1, True), said


def test_try_of_what_is_no_dicom_is_named(tmp_path: Path, package: Path) -> None:
    (tmp_path / "note.txt").write_text("none", encoding="utf-8")
    status, said = tried(tmp_path, package, tmp_path / "note.txt", "rules: [{name: a}]")
    assert (status, "no DICOM file" in said) == (2, True), said
