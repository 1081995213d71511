"""Prepare every case of a manifest once, so that trainings find them in the cache."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from segmed.manifest import read_manifest
from segmed.plan import read_plan
from segmed.preprocessing import cached_case

CHUNK = 16
"""Cases a task: one a case would spend more on the task than on the case."""


@flow(name="preprocess")
def preprocess(manifest_path: Path, plan_path: Path, cache_dir: Path) -> int:
    """Fill the cache; returns the number of cases."""
    manifest = read_manifest(manifest_path)
    ids = [case.id for case in (*manifest.training, *manifest.test)]
    chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    return sum(prepare_chunk(manifest_path, plan_path, cache_dir, chunk) for chunk in chunks)


@task(cache_policy=NO_CACHE)
def prepare_chunk(manifest_path: Path, plan_path: Path, cache_dir: Path, ids: list[str]) -> int:
    """Prepare some cases; those in the cache already cost nothing."""
    manifest, plan = read_manifest(manifest_path), read_plan(plan_path)
    wanted = set(ids)
    cases = [case for case in (*manifest.training, *manifest.test) if case.id in wanted]
    for case in cases:
        cached_case(manifest, case, plan, cache_dir)
    return len(cases)
