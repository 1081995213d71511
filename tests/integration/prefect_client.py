"""Queries of tests to a Prefect server, over its own interface."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests


@dataclass(frozen=True)
class Api:
    """The interface of a server; `url` ends with `/api`."""

    url: str

    def post(self, path: str, **body: Any) -> Any:
        reply = requests.post(f"{self.url}{path}", json=body, timeout=30)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def get(self, path: str) -> Any:
        reply = requests.get(f"{self.url}{path}", timeout=30)
        reply.raise_for_status()
        return reply.json()

    def runs(self, flow: str | None = None) -> list[dict[str, Any]]:
        """Flow runs, oldest first."""
        flows = {"name": {"any_": [flow]}} if flow else None
        return list(self.post("/flow_runs/filter", flows=flows, sort="EXPECTED_START_TIME_ASC"))

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """The newest artifact of each key."""
        found = self.post("/artifacts/latest/filter")
        return {entry["key"]: entry for entry in found if entry["key"]}


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    """The first true answer, or the last one when time is over."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(1)
    return found
