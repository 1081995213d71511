"""`segmed manifest` builds, checks and cleans from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from segmed.errors import UsageError
from segmed.io.dicom.sort import sort_series
from segmed.manifest import build_manifest, case_hash, read_manifest


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_set_is_built_checked_and_cleaned(paired_set: Path, tmp_path: Path) -> None:
    path, clean = tmp_path / "m" / "set.json", tmp_path / "clean.json"
    built = run(
        "manifest", "build", paired_set, "-o", path, "--group-by", r"^p\d",
        "--label-names", "head, tail",
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    assert [one["name"] for one in json.loads(path.read_text(encoding="utf-8"))["labels"]] == [
        "head",
        "tail",
    ]
    assert run("manifest", "check", path).exit_code == 0
    (paired_set / "labels" / "p2_s1.nii.gz").unlink()
    checked = run("manifest", "check", path, "--json", "--write-clean", clean)
    assert checked.exit_code == 1
    assert [one["code"] for one in json.loads(checked.stdout)["faults"]] == ["missing_file"]
    assert len(json.loads(clean.read_text(encoding="utf-8"))["training"]) == 7
    assert list(json.loads(clean.with_suffix(".dropped.json").read_text(encoding="utf-8"))) == [
        "p2_s1"
    ]
    assert run("manifest", "check", clean).exit_code == 0


def test_faults_stand_in_a_table(paired_set: Path, tmp_path: Path) -> None:
    assert run("manifest", "build", paired_set, "-o", tmp_path / "set.json").exit_code == 0
    (paired_set / "labels" / "p2_s1.nii.gz").unlink()
    lines = run("manifest", "check", tmp_path / "set.json").stdout.splitlines()
    assert lines[0].split() == ["case", "fault", "found"]
    assert lines[1].split()[:3] == ["error", "p2_s1", "missing_file"]
    assert lines[-1].startswith("8 cases, 1 faults")


def test_a_mixed_heap_of_dicom_files_is_scanned_sorted_and_built(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    heap, tidy = tmp_path / "heap", tmp_path / "tidy"
    heap.mkdir()
    files = sorted(shared_data("pgbm").rglob("*.dcm"))
    for number, path in enumerate(files):
        shutil.copyfile(path, heap / f"x{(37 * number) % 1009}")
    (heap / "notes.txt").write_text("no image", encoding="utf-8")
    refused = run("manifest", "build", heap, "-o", tmp_path / "m.json")
    assert "--sort-into" in refused.output
    done = run("manifest", "scan", heap, "--sort-into", tidy)
    assert done.exit_code == 0, done.output
    assert "8 series: 8 usable, 0 refused" in done.stdout
    assert "PGBM" not in done.stdout
    assert sum(path.is_file() for path in tidy.rglob("*")) == len(files)
    assert run("manifest", "build", tidy, "-o", tmp_path / "m.json").exit_code == 0
    ours = read_manifest(tmp_path / "m.json")
    theirs = build_manifest(shared_data("pgbm"))
    assert [case.id for case in ours.training] == [case.id for case in theirs.training]
    assert {case_hash(ours, case) for case in ours.training} == {
        case_hash(theirs, case) for case in theirs.training
    }
    with pytest.raises(UsageError, match="not empty"):
        sort_series([], tidy)
    next(tidy.rglob("0011.dcm")).unlink()
    again = run("manifest", "scan", tidy, "--json")
    assert again.exit_code == 1
    assert [row["verdict"] for row in json.loads(again.stdout)].count("missing_slice") == 1


def test_progress_is_one_bar_on_a_terminal_and_lines_elsewhere() -> None:
    code = (
        "from pipelines.terminal.console import counting\n"
        "with counting('checked') as show:\n"
        "    for done in range(1, 41): show(done, 40)"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert elsewhere.stderr.decode().splitlines()[-1] == "checked: 40 of 40"
    assert elsewhere.stderr.count(b"\n") == 11
    ours, theirs = os.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "checked" in shown
    assert "40 of 40" in shown
    assert "checked: 40 of 40" not in shown
