"""Images of the bundled sample, as networks of drawn weights are given them."""

from __future__ import annotations

from pathlib import Path

import pytest
from nnunet_golden import write_images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two channels of one real image on one grid, zero outside of a part."""
    return write_images(tmp_path_factory.mktemp("images"))
