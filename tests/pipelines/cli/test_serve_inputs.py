"""Inputs of `segmed serve`: checked where this machine reads them, noted where workers do."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.cli.serve import check_inputs_of_workers, require_inputs
from segmed.errors import PackageError, UsageError


def test_serving_machine_must_have_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; give a folder"):
        require_inputs(str(tmp_path / "archive"), [], None, None)
    with pytest.raises(UsageError, match="--rules"):
        require_inputs(str(tmp_path), [], tmp_path / "rules.yaml", None)
    with pytest.raises(PackageError):
        require_inputs(str(tmp_path), [str(tmp_path / "package")], None, None)
    require_inputs("dicomweb://host/path", [], None, None)


def test_inputs_of_workers_on_other_machines_are_noted_when_absent_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = [str(tmp_path / name) for name in ("archive", "package", "rules.yaml", "m.json")]
    archive, package, rules, manifest = absent
    check_inputs_of_workers(archive, [package], Path(rules), Path(manifest), work_pool="gpus")
    said = capsys.readouterr().err
    assert [line.split(" does not")[0].split()[-1] for line in said.splitlines()] == absent
    assert "the workers of gpus must have it" in said
    check_inputs_of_workers("dimse://PACS@host:104", [], None, None, work_pool="gpus")
    check_inputs_of_workers(str(tmp_path), [], None, None, work_pool="gpus")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("mistyped", ["archive", "package", "rules", "manifest"])
def test_relative_input_of_workers_must_exist(
    mistyped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {name: f"{name}.d" for name in ("archive", "package", "rules", "manifest")}
    for name in names.values():
        (tmp_path / name).mkdir()
    names[mistyped] = "mistyped"
    archive, package, rules, manifest = names.values()
    with pytest.raises(UsageError, match=r"mistyped does not exist in .*; correct it, or give the"):
        check_inputs_of_workers(archive, [package], Path(rules), Path(manifest), work_pool="gpus")


def test_unknown_device_is_refused_as_in_the_other_commands(
    tmp_path: Path, package_folder: Path
) -> None:
    words = ["serve", "--archive", str(tmp_path), "--model", str(package_folder)]
    ended = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out"), "--device", "cuda:0,gpu"])
    assert ended.exit_code == 2
    assert "unknown device 'gpu'" in " ".join(ended.output.split())
