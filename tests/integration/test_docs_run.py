"""Every command that the documentation shows is run, page by page, on small real images.

Comments beside the commands say what is changed, left out and assumed: see `documentation`.
`docs_site` lays out the files that the pages name.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docs_site
import pytest
from documentation import PAGES, REPOSITORY, Shown, shown_on
from orthanc_server import Orthanc
from servers import Server, free_port

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]

COMMAND_SECONDS = 600.0
START_SECONDS = 120.0
STOPPED = {0, 130, 143, -signal.SIGTERM}
"""How a service may end when it is told to."""

SHORT = "sed -i 's/iterations_per_epoch:.*/iterations_per_epoch: 2/'"
"""Makes a training with a plan last seconds: `{short} plan.yaml`."""

OUTPUT = re.compile(r"^segmed (?!serve)(?!.*--dry-run).* -o (\S+)", re.MULTILINE)
SEGMENTS = re.compile(r"archive segment (?!.*(?:--dry-run|--until|--description|--unsegmented))")
"""Archive runs that find studies; the others choose among them, and may find none."""

SHOWN = [shown for page in PAGES for shown in shown_on(page)]
RUN = [shown for shown in SHOWN if not shown.values("skip")]


@dataclass
class Shell:
    """A person's shell in the working folder of a page: it keeps variables and services.

    Attributes:
        folder: Where commands run.
        env: The environment of the next command.
        places: What the words in braces stand for.
    """

    folder: Path
    env: dict[str, str]
    places: dict[str, str]
    services: list[tuple[str, subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def run(self, shown: Shown) -> None:
        """Run what a page shows, as its notes say; fails unless it ends as it should."""
        for first in shown.values("first"):
            self.end(self.filled(first), {0}, shown)
        text = self.filled(shown.as_run())
        if shown.language == "yaml":
            self.keep(text)
        elif shown.language == "python":
            (self.folder / "shown.py").write_text(text, encoding="utf-8")
            self.end("python shown.py", {0}, shown)
        elif text.startswith("export "):
            self.env.update(word.split("=", 1) for word in shlex.split(text)[1:])
        elif signs := shown.values("serves") + shown.values("until"):
            self.serve(text, signs[0], shown, stays=bool(shown.values("serves")))
        else:
            self.end(text, {0, 1} if shown.values("may-fail") else {0}, shown)
        self.check_what_is_left(text, shown)

    def check_what_is_left(self, text: str, shown: Shown) -> None:
        """Fails unless a command left what its notes and its option `-o` name."""
        places = shown.values("leaves")
        if found := OUTPUT.search(text):
            places.append(found[1])
        for place in places:
            assert (self.folder / place).exists(), f"{shown}\nrun as: {text}\nno {place}"
        if found and SEGMENTS.search(text):
            outcomes = (self.folder / found[1] / "outcomes.json").read_text(encoding="utf-8")
            assert '"status": "done"' in outcomes, f"{shown}\n{outcomes[:3000]}"

    def keep(self, text: str) -> None:
        """Write a block of YAML under the name that it begins with, if it has one."""
        if named := re.match(r"# (\S+\.yaml)\n", text):
            (self.folder / named[1]).write_text(text, encoding="utf-8")

    def filled(self, text: str) -> str:
        """The text with the values of this test in the place of words in braces."""
        for name, value in self.places.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def end(self, text: str, statuses: set[int], shown: Shown) -> None:
        """Run a command to its end."""
        begun = time.monotonic()
        done = subprocess.run(
            ["sh", "-c", text],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            encoding="utf-8",
        )
        said = f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
        print(f"{time.monotonic() - begun:6.1f} s  {done.returncode}  {text}", flush=True)
        told = f"{shown}\nrun as: {text}\nended with {done.returncode}:\n{said}"
        assert done.returncode in statuses, told
        assert "Traceback" not in done.stderr, told

    def serve(self, text: str, sign: str, shown: Shown, *, stays: bool) -> None:
        """Start a service and see it alive; stop it again, unless what follows needs it."""
        log = self.folder / f"service{len(self.services)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["sh", "-c", text],
                cwd=self.folder,
                env=self.env,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.services.append((text, process, log))
        alive = self.filled(sign)
        deadline = time.monotonic() + START_SECONDS
        while not is_alive(alive, log):
            told = (
                f"{shown}\nrun as: {text}\nis not alive:\n{log.read_text(encoding='utf-8')[-3000:]}"
            )
            assert process.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.3)
        print(f"alive: {text}", flush=True)
        if not stays:
            self.stop_last()

    def stop_last(self) -> None:
        """SIGTERM to the service that was started last."""
        text, process, log = self.services.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            status = process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        assert status in STOPPED, (
            f"{text}\nstopped with {status}:\n{log.read_text(encoding='utf-8')[-3000:]}"
        )

    def stop_all(self) -> None:
        """Stop what still runs, the last one first."""
        while self.services:
            self.stop_last()


def is_alive(sign: str, log: Path) -> bool:
    """Return whether a log holds the sign, or the address answers."""
    if not sign.startswith("http://"):
        return bool(re.search(sign, log.read_text(encoding="utf-8")))
    try:
        with urllib.request.urlopen(sign, timeout=2):
            return True
    except OSError:
        return False


def make_shell(place: Path, prefect_url: str) -> Shell:
    """A shell in an empty folder, with a home of its own and the embedded registry."""
    folder, home = place / "site", place / "home"
    for path in (folder, home):
        path.mkdir(parents=True, exist_ok=True)
    env = os.environ | {
        "HOME": str(home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_API_URL": prefect_url,
        "PREFECT_HOME": str(home / "prefect"),
        "SEGMED_CACHE": str(home / "cache"),
    }
    env.pop("MLFLOW_TRACKING_URI", None)
    places = {"short": SHORT, "prefect": prefect_url.removesuffix("/api").rpartition(":")[2]}
    names = ("metrics", "mlflow", "own_prefect", "dask", "scoring", "node")
    return Shell(folder, env, places | {name: str(free_port()) for name in names})


@pytest.fixture
def shell(prefect: Server, tmp_path: Path) -> Iterator[Shell]:
    running = make_shell(tmp_path, prefect.health.removesuffix("/health"))
    yield running
    running.stop_all()


@pytest.fixture
def pacs(shell: Shell, tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc that holds two studies; the shell knows its ports."""
    running = Orthanc(tmp_path / "orthanc")
    running.start()
    docs_site.studies(tmp_path / "sent")
    running.upload(tmp_path / "sent")
    shell.places |= {"web": str(running.http_port), "dicom": str(running.dicom_port)}
    yield running
    running.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages name."""
    folder = tmp_path_factory.mktemp("site")
    for name, write in docs_site.LAYOUTS.items():
        write(folder / name)
    return folder


@pytest.mark.parametrize("page", sorted({one.page for one in RUN if one.language != "yaml"}))
def test_commands_of_a_page_do_what_they_should(
    page: str, shell: Shell, site: Path, request: pytest.FixtureRequest
) -> None:
    shutil.copytree(site, shell.folder, symlinks=True, dirs_exist_ok=True)
    steps = [shown for shown in RUN if shown.page == page]
    if any("{web}" in shown.as_run() for shown in steps):
        request.getfixturevalue("pacs")
    for shown in steps:
        shell.run(shown)
    shell.stop_all()
