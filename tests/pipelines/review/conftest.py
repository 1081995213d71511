"""Archives under review, served."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, chromium
from review_archive import make_archive

from pipelines.review.server import served


@pytest.fixture(scope="session")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real images, segmented by two models one after the other; to be copied."""
    return make_archive(tmp_path_factory.mktemp("served"), seeds=(0, 1))


@pytest.fixture
def out(segmented: Path, tmp_path: Path) -> Path:
    """A copy of the output folder of an archive; the images are shared."""
    return shutil.copytree(segmented, tmp_path / "out")


@pytest.fixture
def address(out: Path) -> Iterator[str]:
    """Address of the served page of `out`."""
    with served(out, "Ada") as place:
        yield place


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless Chromium."""
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found
