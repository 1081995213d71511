"""Prefect's temporary server on a machine that is slow, or that cannot run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

START = """
from pipelines.flows.runner import _ShieldedServer, stop_temporary_server
try:
    _ShieldedServer().start()
    print("answers")
finally:
    stop_temporary_server()
"""

EARLY = """
import time
from pipelines.flows.runner import start_server_early
start_server_early()
time.sleep(4)
print("goes on")
"""


def ended(code: str, home: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_LOGGING_LEVEL": "ERROR", **changes}
    env.pop("PREFECT_API_URL", None)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def test_a_slow_start_is_waited_for(tmp_path: Path) -> None:
    done = ended(START, tmp_path, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="1")
    assert (done.returncode, done.stdout.strip()) == (0, "answers"), done.stderr


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """A server that ends at once, as `uvicorn` cannot be imported, and one second to wait."""
    (tmp_path / "uvicorn").mkdir()
    (tmp_path / "uvicorn" / "__init__.py").write_text("raise SystemExit(7)", encoding="utf-8")
    return {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1",
    }


def test_an_early_start_that_fails_leaves_no_traceback(
    tmp_path: Path, broken: dict[str, str]
) -> None:
    short = EARLY.replace("import time", "import time\nimport pipelines.flows.runner as runner\n"
                          "runner.STARTUP_S = 1", 1)  # fmt: skip
    done = ended(short, tmp_path / "home", **broken)
    assert done.stdout.strip() == "goes on"
    assert "Traceback" not in done.stderr
