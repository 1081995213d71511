"""A disk that fills up and a case that cannot be read: named, and the last checkpoint stands."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from narrow_training import STEPS_PER_EPOCH, assert_equal, start, weights

from segmed.errors import ManifestError, TrainingError
from segmed.manifest import Manifest
from segmed.plan import Plan
from segmed.training.checkpoint import load_checkpoint


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to write on beyond this size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_in_mid_training_costs_nothing_but_time(
    manifest: Manifest, plan: Plan, cache_dir: Path, tmp_path: Path
) -> None:
    list(start(manifest, plan, tmp_path / "calm", cache_dir))
    out_dir = tmp_path / "full"
    run = start(manifest, plan, out_dir, cache_dir)
    assert next(run).epoch == 1
    with (
        files_of_at_most(20_000),
        pytest.raises(
            TrainingError,
            match=r"cannot write .*last\.ckpt: no space left on the disk; .* --resume",
        ),
    ):
        next(run)
    assert load_checkpoint(out_dir / "last.ckpt", run={}).step == STEPS_PER_EPOCH
    assert not list(out_dir.glob(".*.part"))
    (rest,) = list(start(manifest, plan, out_dir, cache_dir, resume=True))
    assert rest.epoch == 2
    assert_equal(weights(out_dir), weights(tmp_path / "calm"))


def test_a_case_that_cannot_be_read_is_named_and_the_checkpoint_stands(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    whole = moved(manifest, tmp_path / "set")
    out_dir = tmp_path / "run"
    run = start(whole, plan, out_dir, tmp_path / "cache")
    assert next(run).epoch == 1
    run.close()
    case = whole.split(0)[0][1]
    image = whole.image_paths(case)[0]
    image.write_bytes(image.read_bytes()[:500])
    before = (out_dir / "last.ckpt").read_bytes()
    broken = whole.model_copy(
        update={
            "training": tuple(item.model_copy(update={"sha256": {}}) for item in whole.training)
        }
    )
    with pytest.raises(ManifestError, match=f"case {case.id}"):
        list(start(broken, plan, out_dir, tmp_path / "cache", resume=True))
    assert (out_dir / "last.ckpt").read_bytes() == before


def moved(manifest: Manifest, folder: Path) -> Manifest:
    """A copy of the cases' files, to be damaged."""
    for case in manifest.training:
        for path in (*manifest.image_paths(case), manifest.label_path(case)):
            assert path is not None
            place = folder / path.relative_to(manifest.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return manifest.model_copy(update={"root": folder})
