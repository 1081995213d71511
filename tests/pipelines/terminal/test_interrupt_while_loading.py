"""Ctrl-C and SIGTERM while a command imports its libraries, which may swallow the exception."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import hippocampus_package, write_case, write_set

from pipelines.terminal.termination import INTERRUPTED

INTERRUPTED_IMPORT = """
import os, signal, sys, time
from threading import current_thread, main_thread

module, number, times = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))

class Import:
    is_sent = False

    def find_spec(self, name, path=None, target=None):
        if name != module or self.is_sent or current_thread() is not main_thread():
            return None
        global times
        self.is_sent = True
        try:
            for _ in range(abs(times)):
                os.kill(os.getpid(), number)
                sum(range(1000))
            while times < 0:
                try:
                    time.sleep(300)
                except BaseException:
                    times += 1
            if times == 0:
                time.sleep(300)
        except BaseException:
            if times != 1:
                raise
            return None
        if times > 1:
            os._exit(3)

sys.meta_path.insert(0, Import())
from pipelines.cli import main
main()
"""
"""The command line, stopped while it imports a library that swallows every exception.

A second signal must raise an exception, which is not swallowed. If the number of signals is
negative, the import takes long and swallows the first exception only.
"""


def interrupted(words: str, folder: Path, module: str, number: int, times: int = 1) -> str:
    """Stderr of a command that ends with status 130."""
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, module, str(number), str(times)]
    done = subprocess.run(
        [*command, *shlex.split(words)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == INTERRUPTED, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, its plan, a package and a folder of one image."""
    place = tmp_path_factory.mktemp("loading")
    write_set(place, training=4)
    (place / "scans").mkdir()
    write_case(place / "scans", "case", 0)
    hippocampus_package().save(place / "package")
    return place


@pytest.mark.parametrize(
    ("words", "module"),
    [
        ("predict scans --model package -o out", "torch"),
        ("archive segment scans --model package -o out", "monai"),
        (
            "compare cubes.json --plan plan.yaml --models unet --folds 0 --epochs 1 -o runs",
            "prefect",
        ),
        ("train cubes.json --plan plan.yaml --model unet --epochs 1 -o runs", "monai"),
        ("manifest check cubes.json", "nibabel"),
        ("doctor", "typer"),
    ],
)
def test_interrupt_that_an_import_swallows_ends_the_command(
    words: str, module: str, folder: Path
) -> None:
    assert "segmed: interrupted; " in interrupted(words, folder, module, signal.SIGINT)


def test_sigterm_that_an_import_swallows_ends_the_command(folder: Path) -> None:
    words = "archive segment scans --model package -o out"
    assert "segmed: interrupted; " in interrupted(words, folder, "torch", signal.SIGTERM)


def test_second_interrupt_does_not_wait_for_an_import(folder: Path) -> None:
    words = "predict scans --model package -o out"
    assert "interrupted; " in interrupted(words, folder, "torch", signal.SIGINT, times=2)


def test_long_import_is_interrupted_until_it_ends(folder: Path) -> None:
    words = "predict scans --model package -o out"
    assert "interrupted; " in interrupted(words, folder, "torch", signal.SIGINT, times=-1)


LOST_INTERRUPT = """
import os, signal, sqlite3, sys, time
from contextlib import suppress
from pydantic import BaseModel, model_serializer

form = sys.argv.pop(1)

def wait():
    time.sleep(300)

class Settings(BaseModel):
    @model_serializer
    def settings(self):
        wait()

def forget():
    with suppress(KeyboardInterrupt):
        wait()
    raise RuntimeError("the library was not set up")

class Import:
    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        os.kill(os.getpid(), signal.SIGINT)
        if form == "Rust":
            Settings().model_dump()
        if form == "C":
            database = sqlite3.connect(":memory:")
            database.create_function("wait", 0, wait)
            database.execute("select wait()")
        forget()

sys.meta_path.insert(0, Import())
from pipelines.cli import main
main()
"""
"""The command line, stopped in an import whose own error knows nothing of the interrupt."""


@pytest.mark.parametrize("form", ["Rust", "C", "Python"])
def test_error_that_a_library_makes_of_an_interrupt_is_an_interrupt(
    form: str, folder: Path
) -> None:
    words = shlex.split("predict scans --model package -o out")
    done = subprocess.run(
        [sys.executable, "-c", LOST_INTERRUPT, form, *words],
        cwd=folder,
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == INTERRUPTED, done.stderr
    assert "segmed: interrupted; " in done.stderr
    assert "Traceback" not in done.stderr


INTERRUPTED_CONVERSIONS = """
import os, signal, threading, time
from contextlib import suppress
import torch
from pipelines.terminal.termination import stop_on_signals
from segmed.errors import ModelError
from segmed.inference.openvino_engine import converted
from segmed.models import build_model

network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, widths=[4, 8, 16])
shape = (1, 1, 16, 16, 16)
converted(network, shape)
begin = time.monotonic()
converted(network, shape)
whole = time.monotonic() - begin
stop_on_signals()
for number in range(20):
    after = whole * (number + 0.5) / 20
    interrupt = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with suppress(ModelError):  # of a long conversion: raised again behind it
            converted(network, shape)
        time.sleep(60)
    except KeyboardInterrupt:
        interrupt.join()
        continue
    raise SystemExit("the interrupt was lost")
"""


def test_interrupts_of_a_conversion_are_not_lost() -> None:
    """OpenVINO calls Python from C++, where an exception loses its type."""
    pytest.importorskip("openvino", reason="the conversion is OpenVINO's")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_CONVERSIONS],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
