"""`segmed review`: mistakes in one line, 3D Slicer and back, the page's address."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from review_archive import make_archive
from typer.testing import CliRunner

from pipelines.cli.app import app
from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.judgement import judge_study


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmented archive."""
    return make_archive(tmp_path_factory.mktemp("command"))


@pytest.fixture
def out(segmented: Path, tmp_path: Path) -> Path:
    """A copy of its output folder."""
    return shutil.copytree(segmented, tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no ledger"),
        (["OUT", "--open", "paint"], "unknown program 'paint'"),
        (["OUT", "--read", "x.seg.nrrd"], "--read needs the study"),
        (["OUT", "--study", "hippocampus", "--open", "slicer"], "belongs to 3 studies"),
        (["OUT", "--study", "hippocampus_001", "--read", "x.seg.nrrd"], "no such file"),
        (["OUT", "--study", "hippocampus_001", "--read", "INDEX"], "begin with NRRD"),
        (["OUT", "--author", " "], "1 to 80 printable"),
    ],
)
def test_mistake_is_one_line_and_status_2(out: Path, words: list[str], said: str) -> None:
    named = {"OUT": str(out), "INDEX": str(out / "index.csv")}
    done = CliRunner().invoke(app, ["review", *[named.get(word, word) for word in words]])
    lines = done.output.strip().splitlines()
    assert done.exit_code == 2
    assert len(lines) == 1
    assert said in lines[0]


def test_port_in_use_is_refused(out: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = str(taken.getsockname()[1])
        done = CliRunner().invoke(app, ["review", str(out), "--port", number])
    assert done.exit_code == 2
    assert f"port {number} cannot be used" in done.output


def test_slicer_folder_is_written_and_the_way_back_printed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    words = ["review", str(out), "--open", "slicer", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert Path(record["segmentation"]).is_file()
    back = record["read_back"].split(" review ")[1].split()
    read = CliRunner().invoke(
        app, ["review", *back, "--accept", "--author", "Dr. Ada", "--json"], catch_exceptions=False
    )
    assert read.exit_code == 0, read.output
    archive = ReviewArchive(out)
    (correction,) = archive.store.corrections()
    assert (correction.author, correction.origin) == ("Dr. Ada", "slicer")
    assert judge_study(archive.store.opinions(correction.key)).state == "accepted"
    assert json.loads(read.stdout)["file"] == str(out / correction.file)


def test_slicer_on_this_machine_is_started_and_what_it_saved_is_read_back(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "Slicer"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys, SimpleITK as sitk\n"
        "path = pathlib.Path(sys.argv[2]).with_name('segmentation.seg.nrrd')\n"
        "image = sitk.ReadImage(str(path)); image[1, 2, 3] = 2\n"
        "sitk.WriteImage(image, str(path))\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    words = ["review", str(out), "--study", "hippocampus_001", "--open", "slicer"]
    done = CliRunner().invoke(app, [*words, "--author", "Ada"])
    assert done.exit_code == 0, done.output
    archive = ReviewArchive(out)
    (correction,) = archive.store.corrections()
    study = archive.study("hippocampus_001")
    assert archive.corrected(study, correction)[1, 2, 3] == 2


def test_page_is_served_until_ctrl_c_at_the_address_that_is_printed(out: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "review", str(out), "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        address = json.loads(text)["address"]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"segmed review" in answer.read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "opinions and corrections are kept" in err
