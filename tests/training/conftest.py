"""Fixtures of real trainings: cases, plan and cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from narrow_training import few_cases, narrow_plan

from segmed.manifest import Manifest
from segmed.plan import Plan


@pytest.fixture(scope="session")
def manifest(sample_manifest_path: Path) -> Manifest:
    return few_cases(sample_manifest_path)


@pytest.fixture(scope="session")
def plan(manifest: Manifest) -> Plan:
    return narrow_plan(manifest)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")
