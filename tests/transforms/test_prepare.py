"""Images reach the network turned, cropped, scaled and resampled; probabilities come back."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inverse_oracle import inverse_probs, inverse_slab
from monai.data import MetaTensor

from segmed.errors import GeometryError, ImageError, UsageError
from segmed.geometry import Grid, same_grid
from segmed.plan.schema import Intensity, Plan
from segmed.preprocessing import (
    class_values,
    prepare,
    prepare_label,
)

ORIENTATIONS = ["RAS", "LPS", "LAS", "PIR", "SAL", "IPL", "ASR", "RSA"]
PlanMaker = Callable[..., Plan]
ImageMaker = Callable[..., MetaTensor]


def one_hot(label: torch.Tensor, num_classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(label.long(), num_classes).movedim(-1, 0).float()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_seen_alike(
    orientation: str, make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    image = make_image((5, 6, 7), orientation=orientation)
    prepared = prepare(image, make_plan_for())
    assert prepared.grid.orientation == "RAS"
    place_mm = prepared.grid.affine_ras @ np.array([1.0, 2.0, 3.0, 1.0])
    stored = np.rint(np.linalg.inv(image.affine.numpy()) @ place_mm).astype(int)
    assert prepared.tensor[0, 1, 2, 3] == image[0, stored[0], stored[1], stored[2]]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
    target=st.sampled_from(ORIENTATIONS),
    channels=st.integers(1, 2),
)
def test_turning_there_and_back_changes_nothing(
    shape: tuple[int, int, int],
    orientation: str,
    target: str,
    channels: int,
    make_plan_for: PlanMaker,
    make_image: ImageMaker,
) -> None:
    image = make_image(shape, orientation=orientation, channels=channels)
    prepared = prepare(image, make_plan_for(channels=channels, orientation=target))
    assert prepared.grid.orientation == target
    assert torch.equal(inverse_probs(prepared.tensor, prepared), image.as_tensor())
    corners = sorted(map(tuple, np.round(prepared.grid.corners_mm(), 6)))
    assert corners == sorted(map(tuple, np.round(prepared.grid_in.corners_mm(), 6)))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 12)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
    spacing_mm=st.tuples(*[st.sampled_from([0.6, 1.0, 1.7, 3.0])] * 3),
    cut=st.integers(1, 11),
    crop=st.booleans(),
)
def test_slab_by_slab_equals_the_whole_bit_for_bit(
    shape: tuple[int, int, int],
    orientation: str,
    spacing_mm: tuple[float, float, float],
    cut: int,
    crop: bool,
    make_plan_for: PlanMaker,
    make_image: ImageMaker,
) -> None:
    image = make_image(shape, orientation=orientation, spacing_mm=spacing_mm)
    image[:, :1] = 0
    image[:, :, -1:] = 0
    prepared = prepare(image, make_plan_for(crop_nonzero=crop))
    probs = torch.rand((3, *prepared.tensor.shape[1:]), generator=torch.Generator().manual_seed(3))
    whole = inverse_probs(probs, prepared)
    assert whole.shape == (3, *shape)
    ends = [0, min(cut, shape[0]), shape[0]]
    parts = [inverse_slab(probs, prepared, slice(*pair)) for pair in itertools.pairwise(ends)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_probabilities_stay_probabilities_and_lie_where_the_structure_is(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    image = make_image((40, 36, 20), spacing_mm=(0.7, 0.9, 2.5), orientation="LPS")
    label = torch.zeros((1, 40, 36, 20), dtype=torch.int32)
    label[0, 8:30, 10:26, 4:15] = 1
    plan = make_plan_for(spacing_mm=(1.0, 1.0, 1.5))
    prepared = prepare(image, plan)
    classes = prepare_label(MetaTensor(label, affine=image.affine), prepared, plan)
    probs = inverse_probs(one_hot(classes, 3), prepared)
    torch.testing.assert_close(probs.sum(dim=0), torch.ones(40, 36, 20))
    back = probs.argmax(dim=0)
    assert float((back != label[0]).float().mean()) < 0.03
    overlap = (
        2 * ((back == 1) & (label[0] == 1)).sum() / ((back == 1).sum() + (label[0] == 1).sum())
    )
    assert float(overlap) > 0.94


def test_target_spacing_keeps_the_field_of_view(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    image = make_image((20, 30, 12), spacing_mm=(0.5, 1.0, 3.0), orientation="PIR")
    prepared = prepare(image, make_plan_for())
    inner, outer = prepared.grid_in, prepared.grid

    def corner(grid: Grid, index: list[float]) -> np.ndarray:
        return grid.affine_ras @ np.array([*index, 1.0])

    ends_in = [
        corner(inner, [x, y, z]) for x in (-0.5, 19.5) for y in (-0.5, 29.5) for z in (-0.5, 11.5)
    ]
    size = outer.shape
    ends_out = [
        corner(outer, [x, y, z])
        for x in (-0.5, size[0] - 0.5)
        for y in (-0.5, size[1] - 0.5)
        for z in (-0.5, size[2] - 0.5)
    ]
    assert np.allclose(
        sorted(map(tuple, np.round(ends_in, 6))), sorted(map(tuple, np.round(ends_out, 6)))
    )


def test_an_image_at_target_spacing_is_not_interpolated(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    image = make_image((8, 9, 10))
    prepared = prepare(image, make_plan_for())
    assert torch.equal(prepared.tensor, image.as_tensor())
    assert same_grid(prepared.grid, prepared.grid_in)


def test_anisotropic_axis_is_resampled_linearly(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    image = make_image((6, 6, 5), spacing_mm=(1.0, 1.0, 4.0))
    apart = prepare(image, make_plan_for(anisotropic_axis=2)).tensor
    linear = prepare(image, make_plan_for(image_order=1)).tensor
    cubic = prepare(image, make_plan_for()).tensor
    assert torch.equal(apart, linear)
    assert not torch.allclose(cubic, linear, atol=1e-2)


def test_voxels_that_were_cropped_away_come_back_as_background(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    image = make_image((9, 8, 7), orientation="LPI")
    inside = torch.zeros((1, 9, 8, 7), dtype=torch.bool)
    inside[0, 2:5, 3:8, 1:6] = True
    image = MetaTensor(image.as_tensor() * inside, affine=image.affine)
    prepared = prepare(image, make_plan_for(crop_nonzero=True))
    assert prepared.tensor.shape == (1, 3, 5, 5)
    probs = torch.zeros((3, 3, 5, 5))
    probs[2] = 1.0
    back = inverse_probs(probs, prepared).argmax(dim=0)
    assert torch.equal(back == 2, inside[0])
    assert bool((back[~inside[0]] == 0).all())


def test_an_image_of_zeros_is_kept_whole(make_plan_for: PlanMaker) -> None:
    image = MetaTensor(torch.zeros((1, 4, 5, 6)), affine=torch.eye(4, dtype=torch.float64))
    plan = make_plan_for(crop_nonzero=True, scheme=Intensity(scheme="zscore", nonzero=True))
    prepared = prepare(image, plan)
    assert torch.equal(prepared.tensor, torch.zeros((1, 4, 5, 6)))


def test_labels_become_class_indices_in_the_order_of_the_plan(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    plan = make_plan_for(values=(255, 7))
    image = make_image((2, 2, 2))
    voxels = torch.tensor([0, 255, 7, 0, 255, 255, 7, 7]).reshape(1, 2, 2, 2)
    classes = prepare_label(MetaTensor(voxels, affine=image.affine), prepare(image, plan), plan)
    assert classes.dtype == torch.uint8
    assert classes.flatten().tolist() == [0, 1, 2, 0, 1, 1, 2, 2]
    assert [class_values(plan)[index] for index in classes.flatten()] == voxels.flatten().tolist()


def test_a_stray_label_value_is_named(make_plan_for: PlanMaker, make_image: ImageMaker) -> None:
    plan, image = make_plan_for(), make_image((3, 3, 3))
    voxels = torch.zeros((1, 3, 3, 3), dtype=torch.int32)
    voxels[0, 0, 0, 0] = 5
    with pytest.raises(ImageError, match=r"values \[5\] that are not labels"):
        prepare_label(MetaTensor(voxels, affine=image.affine), prepare(image, plan), plan)


def test_a_label_on_another_grid_is_refused(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    plan, image = make_plan_for(), make_image((3, 3, 3))
    shifted = image.affine.clone()
    shifted[0, 3] += 0.5
    label = MetaTensor(torch.zeros((1, 3, 3, 3), dtype=torch.int32), affine=shifted)
    with pytest.raises(GeometryError, match=r"corners up to 0\.5 mm apart"):
        prepare_label(label, prepare(image, plan), plan)


def test_other_channel_and_axis_counts_are_refused(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    with pytest.raises(ImageError, match="1 channels, the plan 2"):
        prepare(make_image((3, 3, 3)), make_plan_for(channels=2))
    with pytest.raises(GeometryError, match="for 3 axes, the image has 2"):
        prepare(make_image((3, 3)), make_plan_for())
    image = make_image((3, 3, 3))
    with pytest.raises(GeometryError, match="prepared grid"):
        inverse_probs(torch.zeros((2, 3, 3, 4)), prepare(image, make_plan_for()))


def test_a_raster_goes_there_and_back(make_plan_for: PlanMaker, make_image: ImageMaker) -> None:
    image = make_image((12, 10), spacing_mm=(2.0, 1.0), channels=3)
    plan = make_plan_for(channels=3, spacing_mm=(1.0, 1.0), orientation="")
    prepared = prepare(image, plan)
    assert prepared.tensor.shape == (3, 24, 10)
    assert inverse_probs(torch.rand((2, 24, 10)), prepared).shape == (2, 12, 10)


def test_the_image_itself_is_never_changed(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    image = make_image((6, 5, 4))
    before = image.as_tensor().clone()
    prepare(image, make_plan_for(scheme=Intensity(scheme="zscore")))
    prepare(image, make_plan_for(scheme=Intensity(scheme="unit", nonzero=True)))
    assert torch.equal(image.as_tensor(), before)


def test_any_memory_layout_is_prepared_alike(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    image = make_image((9, 8, 7), spacing_mm=(0.8, 1.3, 2.0), orientation="ASL", channels=2)
    stored = image.as_tensor().permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    assert not stored.is_contiguous()
    plan = make_plan_for(channels=2, scheme=Intensity(scheme="zscore"))
    fortran = prepare(MetaTensor(stored, affine=image.affine), plan).tensor
    torch.testing.assert_close(fortran, prepare(image, plan).tensor, atol=1e-5, rtol=0)


def test_zscore_uses_the_whole_image_or_its_nonzero_voxels(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    image = make_image((6, 6, 6))
    image = MetaTensor(image.as_tensor() * 3 + 50, affine=image.affine)
    whole = prepare(image, make_plan_for(scheme=Intensity(scheme="zscore"))).tensor
    assert abs(float(whole.mean())) < 1e-5
    assert abs(float(whole.std(correction=0)) - 1) < 1e-5
    image[:, :3] = 0
    inside = prepare(image, make_plan_for(scheme=Intensity(scheme="zscore", nonzero=True))).tensor
    assert bool((inside[:, :3] == 0).all())
    assert abs(float(inside[:, 3:].mean())) < 1e-5
    assert abs(float(inside[:, 3:].std(correction=0)) - 1) < 1e-5


def test_ct_and_unit_scales_are_worked_out_by_hand(make_plan_for: PlanMaker) -> None:
    image = MetaTensor(
        torch.tensor([-2000.0, -100.0, 0.0, 900.0]).reshape(1, 4, 1, 1),
        affine=torch.eye(4, dtype=torch.float64),
    )
    ct = Intensity(scheme="ct", low=-100.0, high=300.0, mean=50.0, std=50.0)
    assert prepare(image, make_plan_for(scheme=ct)).tensor.flatten().tolist() == [-3, -3, -1, 5]
    unit = Intensity(scheme="unit", low=-100.0, high=300.0)
    assert prepare(image, make_plan_for(scheme=unit)).tensor.flatten().tolist() == [0, 0, 0.25, 1]
    with pytest.raises(UsageError, match="no mean or std"):
        prepare(image, make_plan_for(scheme=Intensity(scheme="ct")))


def test_n4_flattens_a_smooth_bias(make_plan_for: PlanMaker) -> None:
    x = torch.linspace(-1, 1, 40)
    bias = torch.exp(0.8 * x)[:, None, None].expand(40, 40, 24)
    ball = (x[:, None, None] ** 2 + x[None, :, None] ** 2 < 0.6).expand(40, 40, 24)
    noise = 1 + 0.02 * torch.randn((40, 40, 24), generator=torch.Generator().manual_seed(0))
    image = MetaTensor((100 * ball * bias * noise)[None], affine=torch.eye(4, dtype=torch.float64))
    corrected = prepare(image, make_plan_for(bias_correction=True)).tensor[0]

    def variation(volume: torch.Tensor) -> float:
        return float(volume[ball].std() / volume[ball].mean())

    assert variation(corrected) < 0.35 * variation(image.as_tensor()[0])
