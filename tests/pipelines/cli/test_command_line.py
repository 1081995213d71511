"""The `segmed` command as a user meets it: help, bad input, exit statuses."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import all_commands
from tiny_data import write_set
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from pipelines.terminal.console import plain, table


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("cubes"), training=4)


@pytest.mark.parametrize("words", all_commands())
def test_every_command_has_help_with_an_example(words: str) -> None:
    result = run(*words.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: segmed {words}" in " ".join(result.stdout.split())


def test_help_starts_fast_and_without_torch() -> None:
    code = (
        "import sys; from pipelines.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'monai', 'mlflow', 'prefect', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stderr.strip() == "[]"
    assert "segment whole" in done.stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["manifest", "check", "none.json"], "none.json"),
        (["plan", "none.json"], "none.json"),
        (["train", "{m}", "--model", "unett", "--epochs", "1"], "unknown model 'unett': known are"),
        (["train", "{m}", "--model", "unet", "--fold", "7", "--epochs", "1"], "fold '7' is not in"),
        (["train", "{m}", "--model", "unet"], "give a budget"),
        (["train", "{m}", "--model", "unet", "--budget", "soon"], "write 90s, 10m"),
        (["train", "{m}", "--model", "unet", "--budget", "1m", "--epochs", "2"], "give a budget"),
        (["compare", "{m}", "--models", "unet,vnet", "--epochs", "1"], "unknown model 'vnet'"),
        (["compare", "{m}", "--models", ",", "--epochs", "1"], "no model is named"),
        (["predict", "x.nii", "--model", "nowhere", "-o", "out"], "nowhere does not exist"),
        (["archive", "status", "nowhere"], "nowhere"),
        (["archive", "retry", "nowhere"], "nowhere"),
        (["evaluate", "--predictions", "a", "--references", "b", "-o", "c"], "a does not exist"),
        (["model", "show", "nowhere"], "nowhere does not exist"),
        (["model", "import", "nowhere.zip", "--name", "x"], "nowhere.zip"),
        (["model", "export", "nowhere", "-o", "x", "--format", "pickle"], "unknown format"),
        (["serve", "--archive", ".", "--model", "models:/a@b", "-o", "out"], "PREFECT_API_URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_status_two(
    words: list[str],
    message: str,
    cubes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    plan = ["--plan", str(cubes.parent / "plan.yaml")] if words[0] in {"train", "compare"} else []
    result = run(*(word.format(m=cubes) for word in words), *plan)
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2
    assert lines[-1].startswith("segmed: ")
    assert message in lines[-1]
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_check_lists_faults_and_ends_with_status_one(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, training=4)
    (tmp_path / "case1_image.nii").write_bytes(b"")
    result = run("manifest", "check", manifest, "--json")
    assert result.exit_code == 1
    faults = json.loads(result.stdout)["faults"]
    assert {fault["case_id"] for fault in faults if fault["severity"] == "error"} == {"case1"}


def test_evaluation_of_perfect_predictions_is_perfect(cubes: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for index in (0, 1):
            label = cubes.parent / f"case{index}_label.nii"
            (tmp_path / folder / label.name).write_bytes(label.read_bytes())
    out = tmp_path / "scores"
    result = run(
        "evaluate",
        "--predictions",
        tmp_path / "a",
        "--references",
        tmp_path / "b",
        "-o",
        out,
        "--labels",
        cubes,
        "--json",
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)["summary"]
    dice = {row["label"]: row["mean"] for row in summary if row["metric"] == "dice"}
    assert dice == {"anterior": 1.0, "posterior": 1.0, "mean": 1.0}
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_interruption_says_how_to_continue(cubes: Path, tmp_path: Path) -> None:
    words = ["train", str(cubes), "--model", "unet", "--epochs", "500"]
    words += ["--plan", str(cubes.parent / "plan.yaml")]
    code = "from pipelines.cli import main\nmain()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert re.search(r"segmed: interrupted; continue with: \S*segmed train ", rest)
    assert rest.strip().endswith("--resume")
    assert (tmp_path / "segmed-runs/runs/unet/fold0/last.ckpt").exists()


def test_json_holds_no_number_that_json_cannot() -> None:
    assert plain({"a": float("nan"), "b": [float("inf"), 1.0]}) == {"a": None, "b": [None, 1.0]}


def test_tables_are_aligned() -> None:
    lines = table([{"a": "long name", "b": 0.5}], ["a", "b"])
    assert lines == ["a          b", "long name  0.5000"]
