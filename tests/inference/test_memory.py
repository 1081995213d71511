"""Memory is said beforehand and kept."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_data import affine_from

from segmed.errors import UsageError
from segmed.freed_memory import release_freed_memory
from segmed.geometry import Grid
from segmed.inference import Predictor, predict_files
from segmed.inference.memory import CLEANING_BYTES, peak_memory, resident_bytes
from segmed.inference.postprocessing import Cleaning, clean
from segmed.inference.sliding import shallowest_dim
from segmed.plan import Inference


@pytest.fixture(scope="module")
def predictor(make_plan, make_package) -> Predictor:
    return Predictor(make_package(make_plan(patch=(16, 16, 16))), memory_gb=64.0, engine="torch")


def grid(*shape: int) -> Grid:
    return Grid(shape, affine_from((1.0, 1.0, 1.0)))


def test_sums_of_windows_do_not_grow_with_the_length_of_the_volume(predictor: Predictor) -> None:
    short, long = (predictor.estimate_memory(grid(64, 64, n)) for n in (128, 4096))
    assert short.buffer == long.buffer == 4 * 3 * 64 * 64 * 16
    assert long.image == 32 * short.image
    assert long.inverse == short.inverse
    assert long.label == 32 * short.label


def test_buffer_dim_is_where_a_window_is_shallowest_against_the_volume() -> None:
    assert shallowest_dim((512, 512, 800), (96, 96, 96)) == 2
    assert shallowest_dim((512, 512, 100), (128, 128, 32)) == 0
    assert shallowest_dim((20, 512, 512), (20, 96, 96)) == 1


def test_image_beyond_the_bound_is_refused_with_the_figure(make_plan, make_package) -> None:
    bounded = Predictor(make_package(make_plan(patch=(16, 16, 16))), memory_gb=0.01, engine="torch")
    image = MetaTensor(torch.rand(1, 16, 16, 16), affine=torch.eye(4, dtype=torch.float64))
    with pytest.raises(UsageError, match=r"needs \d+\.\d+ GB .* 0\.01 GB are allowed"):
        bounded.predict(image)


def test_bounded_and_unbounded_runs_give_the_same_labels(
    tmp_path: Path, make_plan, make_package, predictor: Predictor
) -> None:
    paths = [tmp_path / f"{n}.nii.gz" for n in range(3)]
    for path in paths:
        noise = np.random.default_rng(int(path.name[0]))
        voxels = noise.integers(0, 900, (30, 20, 25)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    free = Predictor(make_package(make_plan(patch=(16, 16, 16))), engine="torch")
    outputs = [
        [outcome.output for outcome in predict_files(each, paths, tmp_path / name)]
        for each, name in ((predictor, "bounded"), (free, "free"))
    ]
    for first, second in zip(*outputs, strict=True):
        assert first is not None
        assert second is not None
        assert first.read_bytes() == second.read_bytes()


def test_peak_is_seen_though_the_memory_is_gone() -> None:
    release_freed_memory()  # else the block may be one that an engine's tensors left behind
    before = resident_bytes()
    with peak_memory() as peak:
        block = np.ones(64 * 2**20, dtype=np.uint8)
        seen = peak()
        del block
    assert seen - before >= 48 * 2**20  # the rest of the process may give some back


def test_estimate_names_its_parts(predictor: Predictor) -> None:
    text = str(predictor.estimate_memory(grid(64, 64, 128)))
    assert "image 2 MB" in text
    assert "label 0 MB" in text
    assert " GB (" in text


def test_cleaning_by_plan_is_part_of_the_estimate(
    make_plan, make_package, predictor: Predictor
) -> None:
    rules = Inference(keep_largest=(2,))
    cleans = Predictor(make_package(make_plan(patch=(16, 16, 16), inference=rules)), engine="torch")
    estimate = cleans.estimate_memory(grid(64, 64, 4096))
    assert estimate.cleaning == 8 * 64 * 64 * 4096
    assert estimate.total == estimate.finishing
    assert predictor.estimate_memory(grid(64, 64, 4096)).cleaning == 0


@pytest.mark.parametrize("step", ["keep_largest", "remove_small", "fill_holes"])
def test_cleaning_takes_no_more_than_the_estimate_says(step: str) -> None:
    generator = np.random.default_rng(0)
    label = (generator.random((160, 160, 400)) < 0.02).astype(np.uint8)
    label[:80] |= 1
    label[40, 40, 40] = 0
    tracemalloc.start()
    clean(label, [Cleaning(step, 1, 2)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= CLEANING_BYTES * label.size


@pytest.mark.slow
def test_peak_stays_within_a_tenth_of_the_estimate(make_plan, make_package) -> None:
    predictor = Predictor(
        make_package(make_plan(patch=(32, 32, 32), inference=Inference(overlap=0.0))),
        engine="torch",
    )
    image = MetaTensor(torch.rand(1, 160, 160, 320), affine=torch.eye(4, dtype=torch.float64))
    estimate = predictor.estimate_memory(grid(160, 160, 320))
    with peak_memory() as peak:
        predictor.predict(image)
        assert peak() == pytest.approx(estimate.total, rel=0.1)
