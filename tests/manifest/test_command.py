"""`segmed manifest` builds, checks and cleans from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from pipelines.cli.app import app


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_set_is_built_checked_and_cleaned(paired_set: Path, tmp_path: Path) -> None:
    path, clean = tmp_path / "m" / "set.json", tmp_path / "clean.json"
    built = run(
        "manifest", "build", paired_set, "-o", path, "--group-by", r"^p\d",
        "--label-names", "head, tail",
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    assert [one["name"] for one in json.loads(path.read_text())["labels"]] == ["head", "tail"]
    assert run("manifest", "check", path).exit_code == 0
    (paired_set / "labels" / "p2_s1.nii.gz").unlink()
    checked = run("manifest", "check", path, "--json", "--write-clean", clean)
    assert checked.exit_code == 1
    assert [one["code"] for one in json.loads(checked.stdout)["faults"]] == ["missing_file"]
    assert len(json.loads(clean.read_text())["training"]) == 7
    assert list(json.loads(clean.with_suffix(".dropped.json").read_text())) == ["p2_s1"]
    assert run("manifest", "check", clean).exit_code == 0


def test_faults_stand_in_a_table(paired_set: Path, tmp_path: Path) -> None:
    assert run("manifest", "build", paired_set, "-o", tmp_path / "set.json").exit_code == 0
    (paired_set / "labels" / "p2_s1.nii.gz").unlink()
    lines = run("manifest", "check", tmp_path / "set.json").stdout.splitlines()
    assert lines[0].split() == ["case", "fault", "found"]
    assert lines[1].split()[:3] == ["error", "p2_s1", "missing_file"]
    assert lines[-1].startswith("8 cases, 1 faults")


def test_progress_is_one_bar_on_a_terminal_and_lines_elsewhere() -> None:
    code = (
        "from pipelines.cli.console import counting\n"
        "show = counting('checked')\n"
        "for done in range(1, 41): show(done, 40)"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert elsewhere.stderr.decode().splitlines()[-1] == "checked: 40 of 40"
    assert elsewhere.stderr.count(b"\n") == 11
    ours, theirs = os.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert shown.count("\n") == 1
    assert shown.rstrip().endswith(f"[{'#' * 30}] 40 of 40")
