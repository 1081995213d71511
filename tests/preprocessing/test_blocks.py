"""Blocks give back what was compressed; codings keep their stated bound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.io.packs import DamagedRecordError, read_index, write_pack
from segmed.plan.schema import Intensity, Plan
from segmed.preprocessing import prepare, prepare_label
from segmed.preprocessing.blocks import BlockCache, Blocks, block_shape, compress, decompress
from segmed.preprocessing.coding import EXACT, STEPS, Coding, coding_of
from segmed.preprocessing.entry import PreparedEntry, encode_entry


def read_back(values: np.ndarray) -> tuple[Coding, np.ndarray]:
    coding = Coding.from_record(coding_of(values).as_record())
    return coding, coding.decode(coding.encode(values))


@pytest.mark.parametrize(
    "levels",
    [
        (np.arange(200) - 117.0) / 31.7,  # a raster, scaled
        (np.array([0, 1, 2, 17, 250, 1000, 4090]) - 80.5) / 77.7,  # gaps
        np.array([-3.0, 1e-30, 0.5, 2e6]),  # no common step
        np.array([4.25]),
        (np.arange(5000) - 1024.0) / 312.123,  # CT
    ],
)
def test_few_values_are_kept_exactly(levels: np.ndarray) -> None:
    values = np.random.default_rng(0).choice(levels.astype(np.float32), (20, 30, 40))
    coding, again = read_back(values)
    assert coding.error == 0.0
    assert coding.dtype != EXACT.dtype
    assert np.array_equal(again, values)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e5])
@pytest.mark.parametrize("offset", [0.0, -7.0])
def test_many_values_keep_the_stated_bound(scale: float, offset: float) -> None:
    normal = np.random.default_rng(1).normal(size=(64, 64, 64))
    values = (scale * (normal + offset)).astype(np.float32)
    coding, again = read_back(values)
    first, last = np.percentile(values, [1, 99])
    assert coding.dtype == "<u2"
    assert coding.error == pytest.approx((last - first) / (2 * STEPS), rel=1e-3)
    assert np.abs(again - values).max() <= 1.02 * coding.error
    assert again.min() == values.min()


@pytest.mark.parametrize("odd", [1e9, np.inf, np.nan])
def test_values_out_of_the_range_of_steps_are_kept_as_they_are(odd: float) -> None:
    values = np.random.default_rng(2).normal(size=(64, 64, 16)).astype(np.float32)
    values[3, 4, 5] = odd
    coding, again = read_back(values)
    assert coding.dtype == EXACT.dtype
    assert np.array_equal(again, values, equal_nan=True)


@pytest.mark.parametrize(
    ("shape", "slice_axis", "expected"),
    [
        ((512, 512, 450), None, (64, 64, 64)),
        ((220, 250, 10), None, (64, 64, 10)),
        ((220, 250, 10), 2, (220, 250, 4)),
        ((512, 300), None, (512, 300)),
        ((3000, 4000), None, (512, 512)),
    ],
)
def test_blocks_suit_the_patches(
    shape: tuple[int, ...], slice_axis: int | None, expected: tuple[int, ...]
) -> None:
    assert block_shape(shape, slice_axis) == expected


def test_every_box_is_read_as_from_the_whole() -> None:
    array = np.random.default_rng(3).integers(0, 1000, (9, 10, 11)).astype(np.uint16)
    layout, parts = compress(array, (4, 5, 6), 7, np.asarray)
    layout = Blocks.from_record(layout.as_record())
    generator = np.random.default_rng(4)
    for _ in range(50):
        first = generator.integers(0, array.shape)
        last = generator.integers(first, np.array(array.shape) + 1)
        box = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        found = np.zeros_like(array)
        for number, place in layout.touched(box):
            shape = [part.stop - part.start for part in place]
            found[place] = decompress(parts[number], layout.checksums[number], shape, layout.dtype)
        assert np.array_equal(found[box], array[box])


def test_a_block_of_other_bytes_is_refused() -> None:
    layout, parts = compress(np.arange(1000, dtype=np.uint16), (1000,), 0, np.asarray)
    with pytest.raises(DamagedRecordError):
        decompress(parts[0][:-1] + b"\0", layout.checksums[0], (1000,), layout.dtype)


def test_blocks_in_memory_stay_below_their_bound() -> None:
    blocks = BlockCache(1000)
    for number in range(10):
        blocks.put(number, np.zeros(300, dtype=np.uint8))
        blocks.get(0)
    kept = [number for number in range(10) if blocks.get(number) is not None]
    assert kept == [0, 8, 9]  # the first one was used all the time


@pytest.fixture
def entry(
    make_plan_for: Callable[..., Plan],
    make_image: Callable[..., MetaTensor],
    tmp_path: Path,
) -> tuple[PreparedEntry, torch.Tensor, torch.Tensor]:
    plan = make_plan_for(scheme=Intensity(scheme="zscore"), channels=2, spacing_mm=(0.5, 1.0, 1.0))
    image = make_image((70, 50, 80), channels=2)
    values = torch.from_numpy(np.random.default_rng(5).integers(0, 3, (1, 70, 50, 80)))
    prepared = prepare(image, plan)
    label = prepare_label(MetaTensor(values, affine=image.affine), prepared, plan)
    content, facts = encode_entry(prepared, label, measures={"a": 1}, lost=["l1"])
    record = read_index(write_pack(tmp_path, [("k", content, facts)]))["k"]
    return PreparedEntry("k", record, BlockCache(1 << 20)), prepared.tensor, label


def test_an_entry_gives_boxes_of_image_and_label_within_its_errors(
    entry: tuple[PreparedEntry, torch.Tensor, torch.Tensor],
) -> None:
    stored, image, label = entry
    assert stored.facts.shape == tuple(label.shape)
    assert stored.facts.lowest == float(stored.image().min())
    box = (slice(30, 100), slice(0, 50), slice(60, 70))
    for channel, error in enumerate(stored.errors):
        assert 0.0 < error < 0.01
        difference = (stored.image(box)[channel] - image[channel][box]).abs().max()
        assert float(difference) <= 1.02 * error
    found = stored.label(box, is_kept=True)
    assert found is not None
    assert torch.equal(found, label[box])


def test_an_entry_lists_voxels_of_each_class(
    entry: tuple[PreparedEntry, torch.Tensor, torch.Tensor],
) -> None:
    stored, _, label = entry
    assert stored.facts.classes == (1, 2)
    for number, index in enumerate(stored.facts.classes):
        points = stored.points(number)
        assert len(points) > 1000
        assert bool((label[tuple(points.T)] == index).all())
        assert np.array_equal(points, stored.points(number))
