"""Five real cases, a narrow plan and a cache for MONAI's own trainers."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmed.manifest import Manifest, read_manifest
from segmed.plan import Plan
from segmed.plan.make import make_plan


@pytest.fixture(scope="session")
def manifest(sample_manifest_path: Path) -> Manifest:
    whole = read_manifest(sample_manifest_path)
    inside, held_out = whole.split(0)
    return whole.model_copy(update={"training": (*inside[:3], *held_out[:2]), "test": ()})


@pytest.fixture(scope="session")
def plan(manifest: Manifest) -> Plan:
    return make_plan(manifest).model_copy(update={"patch_size": (16, 24, 16)})


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")
