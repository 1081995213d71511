"""Many cases: few files, none of them open, no work over all of them at a second start."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.errors import ManifestError
from segmed.manifest import Case, Manifest
from segmed.manifest.case_reader import CaseReader
from segmed.plan.schema import Intensity, Plan
from segmed.preprocessing import PreparedCache, filling, prepare_cases
from segmed.preprocessing import cache as cache_module
from segmed.training.data import load_cases, make_batch

NUM_CASES = 600
"""Enough for files that stay open, two a case, to exceed the limit several times over."""

MOST_OPEN = 256
SHAPE = (12, 10, 8)


@pytest.fixture
def plan(make_plan_for: Callable[..., Plan]) -> Plan:
    return make_plan_for(scheme=Intensity(scheme="zscore"), spacing_mm=(1.0, 1.0, 1.0))


@pytest.fixture
def manifest(tmp_path: Path, plan: Plan) -> Manifest:
    """Many small volumes."""
    cases = []
    for number in range(NUM_CASES):
        image = np.random.default_rng(number).integers(0, 256, SHAPE).astype(np.int16)
        label = ((image > 200).astype(np.uint8) + (image > 230)).astype(np.uint8)
        for kind, voxels in (("image", image), ("label", label)):
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{kind}{number}.nii")
        cases.append(
            Case(
                id=f"c{number}",
                group=f"c{number}",
                image=(f"image{number}.nii",),
                label=f"label{number}.nii",
                fold=0,
            )
        )
    return Manifest(
        name="many", labels=plan.labels, channels=plan.channels, training=cases, root=tmp_path
    )


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the cases whose files are decoded."""
    read: list[str] = []
    real = cache_module._read

    def noted(reader: CaseReader, case: Case) -> tuple[MetaTensor, MetaTensor | None]:
        read.append(case.id)
        return real(reader, case)

    monkeypatch.setattr(cache_module, "_read", noted)
    return read


@contextmanager
def few_files_open() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_OPEN, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_cases_start_with_few_open_files_and_are_read_once(
    manifest: Manifest,
    plan: Plan,
    tmp_path: Path,
    readings: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "cache"
    with few_files_open():
        cases = load_cases(manifest, manifest.training, plan, folder)
        first = make_batch(cases, plan, seed=0, step=3, share=slice(0, 4), batch_size=4)
    assert sorted(readings) == sorted(case.id for case in manifest.training)
    assert len(list(folder.glob("*.pack"))) <= NUM_CASES // filling.PACK_CASES + 3

    readings.clear()
    opened: list[str] = []
    real = Path.open

    def counted(path: Path, *args: Any, **options: Any) -> Any:
        opened.append(path.suffix)
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", counted)
    with few_files_open():
        again = load_cases(manifest, manifest.training, plan, folder)
        opened.clear()
        second = make_batch(again, plan, seed=0, step=3, share=slice(0, 4), batch_size=4)
    assert readings == []
    assert len(opened) <= 4 * 4  # header, points, image and label of each patch at most
    assert second.case_ids == first.case_ids
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.label, second.label)


def test_a_preparation_that_ends_early_keeps_what_is_done(
    manifest: Manifest, plan: Plan, tmp_path: Path, readings: list[str]
) -> None:
    some = manifest.training[:40]
    stop = threading.Event()
    done: list[int] = []

    def on_case() -> None:
        done.append(1)
        if len(done) == 10:
            stop.set()

    cache = PreparedCache(manifest, plan, tmp_path / "cache")
    kept = prepare_cases(cache, some, on_case=on_case, stop=stop)
    assert 10 <= len(kept) < 40
    left = cache.missing(some)
    assert len(left) <= 30
    readings.clear()
    assert len(prepare_cases(cache, some)) == 40
    assert set(readings) == {case.id for case in left}


def test_a_case_that_cannot_be_read_is_named_and_those_before_it_are_kept(
    manifest: Manifest, plan: Plan, tmp_path: Path, readings: list[str]
) -> None:
    some = manifest.training[:20]
    (tmp_path / "label12.nii").unlink()
    cache = PreparedCache(manifest, plan, tmp_path / "cache")
    with pytest.raises(ManifestError, match=r"c12.*label12\.nii does not exist"):
        prepare_cases(cache, some)
    for case in some[:12]:
        assert cache.has(cache.key(case))
    assert len(readings) < 20
