"""`segmed manifest` builds, checks and cleans from the command line."""

from __future__ import annotations

import json
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
