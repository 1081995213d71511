"""`segmed doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from typing import Any

import typer

from pipelines.cli.console import DONE_WITH_FAILURES, JsonOption, emit

PARTS = (
    "torch",
    "monai",
    "numpy",
    "nibabel",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "prefect",
    "fastapi",
    "SQLAlchemy",
    "mlflow",
    "openvino",
    "onnx",
)
"""Packages whose versions matter."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(doctor)


def doctor(as_json: JsonOption = False) -> None:
    """What is installed, which device there is, which servers answer; status 1 for a problem.

    Example: segmed doctor
    """
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "free_disk_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "versions": {name: _version(name) for name in PARTS},
        "device": _device(),
        "tracking": _tracking(),
        "prefect": _prefect(),
    }
    problems = _problems(facts)
    lines = [f"{key}: {value}" for key, value in facts.items() if key != "versions"]
    lines += [
        f"{name}: {version or 'not installed'}" for name, version in facts["versions"].items()
    ]
    lines += [f"problem: {problem}" for problem in problems] or ["no problems found"]
    emit({**facts, "problems": problems}, lines, as_json=as_json)
    if problems:
        raise typer.Exit(DONE_WITH_FAILURES)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> str:
    from segmed.training import choose_device

    return choose_device("auto").why


def _tracking() -> dict[str, str]:
    from pathlib import Path

    from pipelines.delivery import tracking_uri, without_password

    uri = tracking_uri(Path())
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return {"where": without_password(uri), "state": "embedded"}
    from pipelines.tracking import connect_quietly
    from segmed.errors import SegmedError

    try:
        connect_quietly(uri)
    except SegmedError as error:
        return {"where": without_password(uri), "state": str(error)}
    return {"where": without_password(uri), "state": "answers"}


def _prefect() -> dict[str, str]:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return {"where": "temporary server, started with each flow", "state": "embedded"}
    import urllib.error
    import urllib.request

    if not url.startswith(("http://", "https://")):
        return {"where": url, "state": "is no http address"}
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=5):  # noqa: S310
            return {"where": url, "state": "answers"}
    except (urllib.error.URLError, TimeoutError) as error:
        return {"where": url, "state": f"does not answer: {error}"}


def _problems(facts: dict[str, Any]) -> list[str]:
    versions = facts["versions"]
    problems = [
        f"{name} does not answer: {facts[name]['state']}"
        for name in ("tracking", "prefect")
        if facts[name]["state"] not in {"answers", "embedded"}
    ]
    problems += [
        f"{name} is missing: install segmed anew" for name in PARTS[:11] if not versions[name]
    ]
    if _numbers(versions["fastapi"]) >= (0, 151):
        problems.append(
            f"fastapi {versions['fastapi']} breaks Prefect's server: install fastapi<0.151"
        )
    if _numbers(versions["SQLAlchemy"]) >= (2, 1):
        found = versions["SQLAlchemy"]
        problems.append(f"SQLAlchemy {found} stops Prefect's scheduler: install sqlalchemy<2.1")
    return problems


def _numbers(version: str | None) -> tuple[int, ...]:
    parts = (version or "0").split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())
