"""Flows behind a proxy: the temporary server is on this machine, where no proxy leads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipelines.flows.runner import reach_loopback_directly

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")

FLOW = """
from prefect import flow
from pipelines.flows.runner import run_flow
print("result", run_flow(flow(lambda: 7, name="seven")))
"""


def behind_proxy(**more: str) -> dict[str, str]:
    """An environment whose proxy is a port that nobody listens at."""
    dead = {case(name): "http://127.0.0.1:9" for name in PROXIES for case in (str.lower, str.upper)}
    kept = {k: v for k, v in os.environ.items() if k.upper() not in ("NO_PROXY", "PREFECT_API_URL")}
    return {**kept, **dead, **more}


@pytest.mark.timeout(150)
@pytest.mark.parametrize("exempt", [{}, {"NO_PROXY": "pacs.local"}], ids=["none", "another host"])
def test_a_flow_ends_behind_a_proxy(exempt: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FLOW],
        env=behind_proxy(**exempt),
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
        encoding="utf-8",
    )
    assert "result 7" in done.stdout, done.stderr[-2000:]
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (None, None, "127.0.0.1,localhost"),
        (None, "pacs.local, localhost", "pacs.local,localhost,127.0.0.1"),
        ("orthanc", "pacs.local", "orthanc,pacs.local,127.0.0.1,localhost"),
    ],
)
def test_hosts_that_are_exempt_stay_so_in_both_spellings(
    monkeypatch: pytest.MonkeyPatch, lower: str | None, upper: str | None, expected: str
) -> None:
    for name, value in (("no_proxy", lower), ("NO_PROXY", upper)):
        monkeypatch.setenv(name, value or "")
    reach_loopback_directly()
    reach_loopback_directly()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == expected
