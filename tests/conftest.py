"""Fixtures for all tests: real data, and a home and temporary folder of the suite's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from suite_folder import isolate, remove_at_exit

isolate()

settings.register_profile("steady", derandomize=True)  # the same examples every time
if os.environ.get("CI"):
    settings.load_profile("steady")

REPOSITORY = Path(__file__).resolve().parent.parent
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
