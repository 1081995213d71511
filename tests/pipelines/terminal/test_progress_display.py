"""Progress on a real terminal is a display with everything in it, and plain lines in a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_data import hippocampus_package, write_case, write_set

from pipelines.comparing.progress import Report
from pipelines.terminal.display import as_of_now

SEGMED = (sys.executable, "-m", "pipelines.cli")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Shown:
    """Output of a command: standard output, and text of the terminal or pipe of stderr."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """The text of stderr, without control sequences."""
        return CONTROL.sub("", self.err)


def run(words: list[str], folder: Path, *, terminal: bool, columns: int = 120) -> Shown:
    """Run a command with stderr on a terminal of its own, or in a pipe; stdout is a pipe."""
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("PREFECT_API_URL", None)
    ours, theirs = os.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    said = bytearray()

    def listen() -> None:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the last writer of a terminal is gone
                return
            if not piece:
                return
            said.extend(piece)

    listener = threading.Thread(target=listen)
    listener.start()
    process = subprocess.Popen(
        [*SEGMED, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    out, _ = process.communicate(timeout=720)
    listener.join(10)
    os.close(ours)
    return Shown(process.returncode, out.decode(), said.decode(errors="replace"))


def compare_words(*more: str) -> list[str]:
    words = ["compare", "cubes.json", "--plan", "plan.yaml", "--models", "unet,unetpp"]
    return [*words, "--folds", "0", "-o", "out", *more]


@pytest.mark.slow
def test_terminal_shows_every_part_of_a_comparison(tmp_path: Path) -> None:
    write_set(tmp_path, training=4)
    shown = run(compare_words("--budget", "20s", "--json"), tmp_path, terminal=True)
    assert shown.status == 0, shown.text
    assert json.loads(shown.out)["winner"] in {"unet", "unetpp"}
    assert "\x1b[" not in shown.out
    assert "\x1b[" in shown.err
    for part in (
        r"unet fold 0 \(model 1 of 2\)",
        r"unetpp fold 0 \(model 2 of 2\)",
        r"preparing case 1 of 4",
        r"4 cases prepared in \d+(\.\d)? s; the budget of 10 s starts now",
        r"epoch 1 ",
        r"Dice [01]\.\d{3}",
        r"\d+ %  \d+ s left",
        r"scoring case 1 of 2",
        r"unet fold 0 \(model 1 of 2\)  held-out Dice [01]\.\d{3} over 2 cases",
    ):
        assert re.search(part, shown.text), (part, shown.text)
    assert "val loss" not in shown.text  # the lines of logs are not printed besides
    assert "Traceback" not in shown.text
    again = run(compare_words("--budget", "20s"), tmp_path, terminal=True)
    assert "unet fold 0 (model 1 of 2)  is trained and scored already: kept" in again.text


@pytest.mark.slow
def test_pipe_gets_plain_lines_also_from_trainings_side_by_side(tmp_path: Path) -> None:
    write_set(tmp_path, training=4)
    words = compare_words("--epochs", "2", "--side-by-side", "2", "--json", "--device", "cpu")
    shown = run(words, tmp_path, terminal=False)
    assert shown.status == 0, shown.err
    assert json.loads(shown.out)["failures"] == []
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", shown.err)
    for number, name in enumerate(("unet", "unetpp"), 1):
        title = rf"{name} fold 0 \(model {number} of 2\)"
        for line in (
            rf"{title}  4 cases prepared in .* s; 2 epochs start now",
            rf"{title}  epoch 2  100 %, 0 s left  loss .* Dice anterior 0\.\d+",
            rf"{title}  scoring case 1 of 2",
            rf"{title}  scoring case 2 of 2",
            rf"{title}  held-out Dice [01]\.\d+ over 2 cases",
        ):
            assert len(re.findall(line, shown.err)) == 1, (line, shown.err)
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" not in shown.err


@pytest.mark.slow
def test_train_on_a_narrow_terminal_keeps_its_numbers(tmp_path: Path) -> None:
    write_set(tmp_path, training=4)
    words = ["train", "cubes.json", "--plan", "plan.yaml", "--model", "unet", "--epochs", "3"]
    shown = run([*words, "-o", "out", "--json"], tmp_path, terminal=True, columns=80)
    assert shown.status == 0, shown.text
    assert json.loads(shown.out)["architecture"] == "unet"
    assert re.search(r"epoch 2  Dice [01]\.\d{3} .* 67 %", shown.text), shown.text
    assert "held-out Dice" in shown.text


@pytest.mark.slow
def test_archive_and_predict_have_a_total_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "scans" / "more").mkdir(parents=True)
    for number in range(3):
        write_case(tmp_path / "scans", f"case{number}", number)
    write_case(tmp_path / "scans" / "more", "case3", 3)
    hippocampus_package().save(tmp_path / "package")
    words = ["archive", "segment", "scans", "--model", "package", "--engine", "torch", "-o", "out"]
    shown = run([*words, "--json"], tmp_path, terminal=True)
    assert shown.status in {0, 1}, shown.text
    number = len(json.loads(shown.out)["outcomes"])
    assert f"{number} of {number}" in shown.text
    assert "studies/s" in shown.text
    plain = run([*words[:-1], "elsewhere"], tmp_path, terminal=False)
    assert "\x1b" not in plain.err
    assert "1 met" in plain.err
    images = ["scans/case0_image.nii", "scans/case1_image.nii"]
    predicted = run(["predict", *images, "--model", "package", "-o", "p"], tmp_path, terminal=True)
    assert predicted.status == 0, predicted.text
    assert "2 of 2" in predicted.text


def test_rows_move_on_between_two_reports() -> None:
    state = Report("unet", "epoch 3", share=0.5, left_s=60.0)
    assert as_of_now(state, 0.0) == (0.5, 60.0)
    assert as_of_now(state, 30.0) == (0.75, 30.0)
    assert as_of_now(state, 90.0) == (1.0, 0.0)
    assert as_of_now(Report("unet", "epoch 3"), 5.0) == (None, None)
    assert as_of_now(Report("unet", "epoch 3", share=0.2), 5.0) == (0.2, None)


def test_logs_as_json_stay_lines_on_a_terminal(tmp_path: Path) -> None:
    write_set(tmp_path, training=4)
    words = ["train", "cubes.json", "--plan", "plan.yaml", "--model", "unet", "--epochs", "1"]
    shown = run(["--log-format", "json", *words, "-o", "out"], tmp_path, terminal=True)
    assert shown.status == 0, shown.text
    messages = [json.loads(line)["message"] for line in shown.err.split("\r\n") if line[:1] == "{"]
    assert any("scoring case 1 of 2" in message for message in messages)
    assert "\x1b" not in shown.err
