"""Fixtures for all tests: real data, and a home and temporary folder of the suite's own."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from sandbox_processes import sandbox  # noqa: F401 - a fixture
from signal_stack_guard import (  # noqa: F401 - hooks that pytest finds here
    pytest_runtest_protocol,
    pytest_runtest_teardown,
)
from suite_folder import isolate, remove_at_exit

from segmed import architectures

isolate()

settings.register_profile("steady", derandomize=True)  # the same examples every time
if os.environ.get("CI"):
    settings.load_profile("steady")

REPOSITORY = Path(__file__).resolve().parent.parent
MONAI_NETWORKS = REPOSITORY / "docs" / "examples" / "monai_networks.py"
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_sessionfinish(exitstatus: int) -> None:
    """Have the suite's folder removed, unless a failed test left something worth a look."""
    if exitstatus == 0:
        remove_at_exit()


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Gives the folder of a real image set, or skips the test where the set is absent."""

    def find(name: str) -> Path:
        folder = SHARED_DATA / name
        if not folder.exists():
            pytest.skip(f"real images {name!r} are not in ../shared/data")
        return folder

    return find


@pytest.fixture(scope="session")
def sample_manifest_path() -> Path:
    """The manifest of the bundled hippocampus sample."""
    return REPOSITORY / "data_manifests" / "hippocampus_sample.json"


@pytest.fixture
def no_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty table of registered architectures during one test."""
    monkeypatch.setattr(architectures, "_REGISTERED", {})


@pytest.fixture
def monai_networks(no_registrations: None) -> None:
    """SegResNet and SwinUNETR, registered by the module of the examples during one test."""
    runpy.run_path(str(MONAI_NETWORKS))
