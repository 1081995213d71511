"""The chain of networks that nnU-Net trained, against SciPy's zoom and numbers by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from segmed.errors import GeometryError, ImageError
from segmed.plan import Augmentation, Intensity, Plan, Preprocessing, Recipe
from segmed.structures import Channel, LabelClass
from segmed.transforms.chain import (
    IMAGE,
    LABEL,
    preparation,
    prepare,
    prepare_label,
    target_transform,
)
from segmed.transforms.nnunet_rules import coarse_axis, foreground_mask
from segmed.transforms.nnunet_steps import NnUNetSpacing, OrderAxes, ScaleCropped

NONE = Intensity(scheme="none")


def plan_of(spacing_mm, *, intensity=(NONE,), **rules) -> Plan:
    preprocessing = Preprocessing(
        orientation=rules.pop("orientation", ""),
        spacing_mm=spacing_mm,
        crop_nonzero=rules.pop("crop_nonzero", True),
        intensity=intensity,
        scheme="nnunet",
        axes=rules.pop("axes", (2, 1, 0)),
        **rules,
    )
    return Plan(
        name="tiny",
        spatial_dims=3,
        channels=tuple(Channel(name=f"c{number}") for number in range(len(intensity))),
        labels=(LabelClass(name="one", value=1), LabelClass(name="two", value=2)),
        preprocessing=preprocessing,
        patch_size=(8, 8, 8),
        networks={},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
    )


def image_of(shape, zooms, channels: int = 1) -> MetaTensor:
    generator = np.random.default_rng(3)
    voxels = ndimage.gaussian_filter(generator.normal(size=(channels, *shape)), (0, 1, 1, 1)) + 0.5
    affine = np.diag([*zooms, 1.0])
    return MetaTensor(torch.from_numpy(voxels.astype(np.float32)), affine=torch.from_numpy(affine))


def test_cubic_interpolation_is_that_of_scipy_with_edge_continuation_and_clipped() -> None:
    image = image_of((14, 17, 11), (0.9, 1.4, 1.1))
    found = prepare(image, plan_of((1.0, 1.0, 1.0))).tensor[0].numpy()
    turned = image.numpy()[0].transpose(2, 1, 0)
    factors = [new / old for new, old in zip(found.shape, turned.shape, strict=True)]
    assert found.shape == (12, 24, 13)
    expected = ndimage.zoom(turned.astype(float), factors, order=3, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(found, expected.clip(turned.min(), turned.max()), atol=2e-5)


@pytest.mark.parametrize("coarse", [0, 1, 2])
def test_a_coarse_axis_takes_the_nearest_slice_in_both_directions(coarse: int) -> None:
    zooms = [1.0, 1.0, 1.0]
    zooms[coarse] = 4.0
    shape = [14, 16, 12]
    shape[coarse] = 5
    image, plan = image_of(shape, zooms), plan_of((1.5, 1.5, 1.5), axes=(0, 1, 2))
    prepared = prepare(image, plan)
    assert prepared.transform.nearest_axis == coarse
    source, found = image.numpy()[0], prepared.tensor[0].numpy()
    flat = [new / old for new, old in zip(found.shape, source.shape, strict=True)]
    flat[coarse] = 1.0
    smooth = ndimage.zoom(source.astype(float), flat, order=3, mode="nearest", grid_mode=True)
    axes = tuple(axis for axis in range(3) if axis != coarse)
    smooth = smooth.clip(source.min(axes, keepdims=True), source.max(axes, keepdims=True))
    num_in, num_out = shape[coarse], found.shape[coarse]
    nearest = np.round((np.arange(num_out) + 0.5) * num_in / num_out - 0.5).astype(int)
    expected = np.take(smooth, nearest.clip(0, num_in - 1), axis=coarse)
    np.testing.assert_allclose(found, expected, atol=2e-5)

    row = preparation(plan)({IMAGE: image})
    back = preparation(plan).inverse(row)[IMAGE]
    assert tuple(back.shape) == tuple(image.shape)
    slices = torch.unbind(back.as_tensor()[0], dim=coarse)
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(slices))
    torch.testing.assert_close(back.as_tensor(), image.as_tensor(), rtol=0, atol=0.5)


def test_axis_is_coarse_above_three_times_the_finest_and_must_be_one_alone() -> None:
    assert coarse_axis([4.0, 1.0, 1.0], [1.0, 1.0, 1.0]) == 0
    assert coarse_axis([1.0, 1.0, 1.0], [1.0, 1.0, 3.1]) == 2
    assert coarse_axis([1.0, 1.0, 1.0], [1.0, 1.0, 3.0]) is None
    assert coarse_axis([4.0, 4.0, 1.0], [1.0, 1.0, 1.0]) is None


def test_statistics_are_those_of_the_body_with_its_holes() -> None:
    voxels = torch.zeros(2, 6, 6, 6)
    voxels[0, 1:5, 1:5, 1:5] = torch.arange(64.0).reshape(4, 4, 4) + 1
    voxels[0, 2, 2, 2] = 0.0  # a hole within the body
    voxels[1, 1:5, 1:5, 1:5] = 7.0
    voxels[1, 2, 2, 2] = 0.0
    mask = foreground_mask(voxels)
    assert int(mask.sum()) == 64
    rules = (Intensity(scheme="zscore", nonzero=True), Intensity(scheme="zscore"))
    found = ScaleCropped(rules)(voxels).as_tensor()
    inside = voxels[0][mask].double().numpy()
    np.testing.assert_allclose(
        found[0][mask].numpy(), (inside - inside.mean()) / inside.std(), rtol=1e-5, atol=1e-6
    )
    assert (found[0][~mask] == 0).all()
    everywhere = voxels[1].double().numpy()
    np.testing.assert_allclose(
        found[1].numpy(), (everywhere - everywhere.mean()) / everywhere.std(), rtol=1e-5
    )


def test_scaling_of_ct_and_of_ranges() -> None:
    voxels = torch.tensor([-2000.0, -100.0, 0.0, 300.0, 3000.0]).reshape(1, 5, 1, 1)
    ct = Intensity(scheme="ct", low=-100.0, high=300.0, mean=50.0, std=25.0)
    assert ScaleCropped((ct,))(voxels).flatten().tolist() == [-6.0, -6.0, -2.0, 10.0, 10.0]
    unit = ScaleCropped((Intensity(scheme="unit"),))(voxels).flatten()
    assert unit.tolist() == pytest.approx([0.0, 0.38, 0.4, 0.46, 1.0])
    rgb = Intensity(scheme="unit", low=0.0, high=255.0)
    assert ScaleCropped((rgb,))(voxels[:, 2:4]).flatten().tolist() == pytest.approx([0, 300 / 255])
    with pytest.raises(ImageError, match="1 channels"):
        ScaleCropped((ct, ct))(voxels)


def test_slices_of_a_flat_network_keep_their_number() -> None:
    image = image_of((14, 17, 11), (0.8, 0.8, 2.0))
    prepared = prepare(image, plan_of((1.0, 1.0, 1.0), kept_axis=0))
    assert prepared.tensor.shape[1:] == (11, 14, 11)


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_cropped_maps_come_back_onto_the_stored_voxels(axes) -> None:
    image = image_of((9, 12, 10), (1.0, 1.0, 1.0))
    image[:, :2] = 0
    image[:, :, -3:] = 0
    plan = plan_of((1.0, 1.0, 1.0), axes=axes)
    label = MetaTensor(torch.randint(0, 3, (1, 9, 12, 10)), affine=image.affine)
    row = preparation(plan)({IMAGE: image, LABEL: label})
    assert row[IMAGE].shape[1:] == tuple((7, 9, 10)[axis] for axis in axes)
    back = preparation(plan).inverse(row)
    torch.testing.assert_close(back[IMAGE].as_tensor(), image.as_tensor())
    inside = image[0] != 0
    assert torch.equal(back[LABEL].as_tensor()[0][inside], label.as_tensor()[0][inside])
    indices = prepare_label(label, prepare(image, plan), plan)
    assert torch.equal(indices.long(), row[LABEL].as_tensor()[0].long())


def test_axes_by_anatomy_are_mirrored_as_well() -> None:
    image = image_of((9, 12, 10), (1.0, 1.0, 1.0))
    image.affine[0, 0] = -1.0
    plan = plan_of((1.0, 1.0, 1.0), axes=(), orientation="SAR")
    found = prepare(image, plan).tensor[0]
    assert torch.equal(found, image.as_tensor()[0].flip(0).permute(2, 1, 0))


def test_target_grid_is_known_before_an_image_is_read() -> None:
    image = image_of((14, 17, 11), (0.9, 1.4, 4.1))
    for plan in (plan_of((1.0, 2.0, 1.0)), plan_of((1.0, 1.0, 1.0), axes=(), orientation="SAR")):
        prepared = prepare(image, plan)
        foreseen = target_transform(prepared.grid_in, plan)
        assert foreseen.shape == tuple(prepared.tensor.shape[1:])
        assert foreseen.nearest_axis == prepared.transform.nearest_axis


def test_images_of_other_axes_are_refused() -> None:
    flat = MetaTensor(torch.ones(1, 9, 9), affine=torch.eye(4, dtype=torch.float64))
    with pytest.raises(GeometryError, match="the plan is for 3 axes, the image has 2"):
        prepare(flat, plan_of((1.0, 1.0, 1.0)))


def test_steps_invert_alone() -> None:
    image = image_of((9, 12, 10), (1.0, 1.0, 1.0))
    order = OrderAxes((1, 2, 0))
    torch.testing.assert_close(order.inverse(order(image)).as_tensor(), image.as_tensor())
    rules = plan_of((1.3, 1.0, 1.0), axes=(0, 1, 2)).preprocessing
    spacing = NnUNetSpacing(rules)
    back = spacing.inverse(spacing(image))
    assert back.shape == image.shape
    torch.testing.assert_close(back.affine, image.affine)
