"""Extent and thickness of structures, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from segmed.plan.shapes import measure_shapes


def test_a_block_extends_and_runs_over_its_edges_in_millimetres() -> None:
    values = np.zeros((8, 9, 10), np.uint8)
    values[1:3, 2:6, 3:9] = 4
    shapes = measure_shapes(values, [4], (1.0, 0.5, 2.0))
    assert shapes.extent_mm.tolist() == [[2.0, 2.0, 12.0]]
    assert shapes.thickness_mm.tolist() == [[2.0, 2.0, 12.0]]
    assert np.isnan(shapes.gap_mm).all()


def test_a_ring_is_as_wide_as_its_hole_and_as_thick_as_its_wall() -> None:
    values = np.zeros((12, 12), np.int16)
    values[1:11, 1:11] = 1
    values[3:9, 3:9] = 0
    shapes = measure_shapes(values, [1], (1.0, 1.0))
    assert shapes.extent_mm.tolist() == [[10.0, 10.0]]
    # Four lines run through 10 voxels, six through two walls of 2: 64 voxels in 16 runs.
    assert shapes.thickness_mm.tolist() == [[4.0, 4.0]]


def test_the_largest_part_counts_and_specks_do_not() -> None:
    values = np.zeros((40, 40), np.uint8)
    values[2:8, 2:8] = 1
    values[39, 39] = 1
    assert measure_shapes(values, [1], (1.0, 1.0)).extent_mm.tolist() == [[6.0, 6.0]]


def test_labels_that_touch_are_measured_apart_and_absent_ones_are_nan() -> None:
    values = np.repeat(np.array([[7, 7, 7, 2, 2, 0]], np.uint16), 5, axis=0)
    shapes = measure_shapes(values, [2, 7, 9, 60_000], (1.0, 1.0))
    assert shapes.thickness_mm[:2].tolist() == [[5.0, 2.0], [5.0, 3.0]]
    assert np.isnan(shapes.extent_mm[2:]).all()
    assert np.isnan(shapes.thickness_mm[2:]).all()


def test_background_between_dense_cells_is_a_structure_and_its_border_is_not() -> None:
    values = np.ones((1, 20), np.uint8)
    values[0, [5, 6, 10]] = 0  # gaps of 2 and 1
    values[0, 19] = 0  # beyond the last cell
    assert measure_shapes(values, [1], (1.0, 3.0)).gap_mm[1] == pytest.approx(1.5 * 3.0)


def test_a_volume_too_large_to_label_is_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmed.plan.shapes.MAX_LABELLED_VOXELS", 1000)
    values = np.zeros((64, 64, 64), np.uint8)
    values[4:60, 8:40, 16:48] = 1
    values[0, 0, 0] = 1
    extent = measure_shapes(values, [1], (1.0, 1.0, 1.0)).extent_mm[0]
    assert extent == pytest.approx([56, 32, 32], abs=16)


def test_other_axis_orders_carry_the_sizes_along() -> None:
    values = np.zeros((4, 6, 8), np.uint8)
    values[:2, :3, :4] = 1
    turned = measure_shapes(values, [1], (1.0, 1.0, 1.0)).along((2, 0, 1))
    assert turned.extent_mm.tolist() == [[4.0, 2.0, 3.0]]
