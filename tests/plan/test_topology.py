"""Levels and patches from size and spacing."""

from __future__ import annotations

import pytest

from segmed.plan import plan_patch, plan_topology


def test_small_isotropic_volume_bears_three_poolings() -> None:
    topology = plan_topology((40, 56, 40), (1.0, 1.0, 1.0))
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert set(topology.kernels) == {(3, 3, 3)}


def test_coarse_axis_is_neither_pooled_nor_convolved_along_until_the_others_caught_up() -> None:
    topology = plan_topology((256, 256, 32), (0.8, 0.8, 5.0))
    # 0.8 and 1.6 mm are under half of 5 mm, 3.2 mm is not.
    assert topology.kernels[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    assert topology.strides[1:4] == ((2, 2, 1), (2, 2, 1), (2, 2, 2))


def test_no_feature_map_falls_below_four_voxels() -> None:
    for size in range(1, 200):
        total = plan_topology((size, 64), (1.0, 1.0)).total_stride
        assert total[0] == 1 or size / total[0] >= 4


def test_patch_covers_the_typical_image_when_memory_allows() -> None:
    assert plan_patch((36, 50, 35), (1.0, 1.0, 1.0), max_voxels=1e6) == (40, 56, 40)


def test_patch_that_must_be_smaller_keeps_the_image_s_proportions() -> None:
    assert plan_patch((35, 50, 36), (1.0, 1.0, 1.0), max_voxels=40_000) == (32, 40, 32)
    patch = plan_patch((512, 512, 100), (0.8, 0.8, 5.0), max_voxels=128**3)
    assert patch[0] == patch[1]
    assert patch[0] / patch[2] == pytest.approx(5.12, rel=0.25)
    assert patch[0] * patch[1] * patch[2] <= 128**3 * 1.2
