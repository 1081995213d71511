"""Ctrl-C on a real terminal: every process of the command gets it, and the command ends at once."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_data import hippocampus_package, write_case, write_set

from pipelines.terminal.termination import INTERRUPTED

SEGMED = str(Path(sys.executable).with_name("segmed"))
LATEST_END_S = 5.0
CTRL_C = b"\x03"
COMPARE = shlex.split("compare cubes.json --plan plan.yaml --models unet --folds 0")

pytestmark = pytest.mark.slow


@dataclass
class Ended:
    """End of a command after Ctrl-C."""

    text: str
    seconds: float
    status: int


def interrupted(words: list[str], folder: Path, *, after: str, wait_s: float = 0.0) -> Ended:
    """Run a command on a terminal of its own, and press Ctrl-C once it has printed something.

    Args:
        words: The command line.
        folder: Working folder.
        after: What it must have printed.
        wait_s: Seconds to wait after that.
    """
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.chdir(folder)
            os.execv(words[0], words)
        finally:
            os._exit(127)  # no second test run
    text, pressed, begun = b"", 0.0, time.monotonic()
    try:
        while time.monotonic() - begun < 240:
            ready, _, _ = select.select([terminal], [], [], 0.1)
            if ready:
                try:
                    text += os.read(terminal, 65536)
                except OSError:  # the terminal is closed: the command has ended
                    break
            if not pressed and after.encode() in text:
                time.sleep(wait_s)
                os.write(terminal, CTRL_C)
                pressed = time.monotonic()
        _, status = os.waitpid(child, 0)
        took = time.monotonic() - pressed if pressed else float("inf")
        return Ended(text.decode(errors="replace"), took, os.waitstatus_to_exitcode(status))
    finally:
        os.close(terminal)


def assert_ends_well(ended: Ended, words: str) -> None:
    """Ended in time, with the command line that continues."""
    assert ended.status == INTERRUPTED, ended.text
    advice = re.search(r"continue with: (\S*segmed) (.*)", ended.text)
    assert advice, ended.text
    assert advice.group(2).startswith(words), advice.group()
    assert advice.group(1) == "segmed" or Path(advice.group(1)).is_file()
    assert "Traceback" not in ended.text
    assert "Crash" not in ended.text
    assert ended.seconds < LATEST_END_S, ended.text


@pytest.fixture
def cubes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    write_set(tmp_path, training=4)
    return tmp_path


def test_compare_ends_with_its_command_and_goes_on_when_repeated(cubes: Path) -> None:
    words = [*COMPARE, "-o", "out"]
    ended = interrupted(
        [SEGMED, *words, "--fresh", "--budget", "10m"], cubes, after="epoch 1", wait_s=0.5
    )
    assert_ends_well(ended, f"{' '.join(words)} --budget 10m")
    checkpoint = cubes / "out" / "runs" / "unet" / "fold0" / "last.ckpt"
    assert checkpoint.exists()
    before = len((checkpoint.parent / "history.jsonl").read_text(encoding="utf-8").splitlines())
    again = interrupted([SEGMED, *words, "--budget", "10m"], cubes, after=f"epoch {before + 1}")
    assert again.status == INTERRUPTED
    assert "epoch 1 " not in again.text
    history = (checkpoint.parent / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["epoch"] for line in history][:before] == list(range(1, before + 1))


def test_train_ends_with_the_command_that_goes_on(cubes: Path) -> None:
    words = shlex.split("train cubes.json --plan plan.yaml --model unet --budget 10m -o out")
    ended = interrupted([SEGMED, *words], cubes, after="epoch 1")
    assert_ends_well(ended, f"{' '.join(words)} --resume")


def test_trainings_side_by_side_end_with_their_command(cubes: Path) -> None:
    words = [
        "compare",
        "cubes.json",
        "--plan",
        "plan.yaml",
        "--models",
        "unet,unetpp",
        "--folds",
        "0,1",
        "--side-by-side",
        "2",
        "--device",
        "cpu",
        "--epochs",
        "100000",
        "-o",
        "out",
    ]
    ended = interrupted([SEGMED, *words], cubes, after="epoch 1")
    assert_ends_well(ended, " ".join(words))
    runs = cubes / "out" / "runs"
    assert list((runs / "unet").glob("fold*/last.ckpt"))
    assert not (runs / "unetpp").exists(), "a queued training began after the stop"


def test_compare_ends_while_its_server_starts(cubes: Path) -> None:
    words = [*COMPARE, "--budget", "10m"]
    ended = interrupted([SEGMED, "-v", *words], cubes, after="temporary server", wait_s=0.5)
    assert_ends_well(ended, "-v compare")


def test_archive_ends_with_its_command(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(400):
        write_case(scans, f"case{number}", number)
    hippocampus_package().save(tmp_path / "package")
    words = shlex.split("archive segment scans --model package --engine torch -o out")
    ended = interrupted([SEGMED, *words], tmp_path, after="met")
    assert_ends_well(ended, " ".join(words))


def test_no_process_is_left(cubes: Path) -> None:
    words = [*COMPARE, "--budget", "10m"]
    ended = interrupted([SEGMED, *words], cubes, after="epoch 1")
    assert ended.status == INTERRUPTED
    time.sleep(1.0)
    left = [
        path
        for path in Path("/proc").glob("[0-9]*/cwd")
        if _links_to(path, cubes) and int(path.parent.name) != os.getpid()
    ]
    for path in left:
        os.kill(int(path.parent.name), signal.SIGKILL)
    assert not left


def _links_to(path: Path, folder: Path) -> bool:
    try:
        return path.resolve(strict=True) == folder
    except OSError:
        return False
