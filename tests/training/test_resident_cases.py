"""Patches gathered out of resident cases equal those that are cut, moved and shaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segmed.plan import Augmentation, Intensity, Plan, Preprocessing, Recipe
from segmed.structures import Channel, LabelClass
from segmed.training.data import make_batch
from segmed.training.gathering import gather_patches
from segmed.training.resident import ResidentCases, patch_rows
from segmed.training.sampling import TrainingCase
from segmed.training.shading import shade, shade_factors
from segmed.transforms.augmentation import _shade, apply_augmentation, draw_augmentation

CPU = torch.device("cpu")
QUIET = {
    "p_noise": 0.0,
    "p_blur": 0.0,
    "p_brightness": 0.0,
    "p_contrast": 0.0,
    "p_gamma": 0.0,
    "p_low_resolution": 0.0,
}


def plan_of(patch: tuple[int, ...], augmentation: Augmentation, slice_axis: int | None) -> Plan:
    return Plan(
        name="tiny",
        spatial_dims=len(patch),
        channels=(Channel(name="a", modality="MR"), Channel(name="b", modality="MR")),
        labels=(LabelClass(name="x", value=1), LabelClass(name="y", value=2)),
        preprocessing=Preprocessing(
            spacing_mm=(1.0, 1.5, 2.0) if len(patch) == 3 or slice_axis is not None else (1.0, 1.5),
            image_order=1,
            intensity=(Intensity(scheme="zscore"),) * 2,
        ),
        patch_size=patch,
        slice_axis=slice_axis,
        networks={},
        recipe=Recipe(batch_size=4, augmentation=augmentation),
    )


def cases_of(shape: tuple[int, ...]) -> list[TrainingCase]:
    """Smooth images whose labels are their level sets, of differing sizes."""
    cases = []
    for number in range(3):
        size = tuple(n + 5 * number for n in shape)
        generator = torch.Generator().manual_seed(number)
        coarse = torch.randn(1, 2, *[8] * len(shape), generator=generator)
        mode = "trilinear" if len(shape) == 3 else "bilinear"
        image = F.interpolate(coarse, size=size, mode=mode)[0]
        label = (image[0] > 0).to(torch.uint8) + (image[0] > 0.5).to(torch.uint8)
        cases.append(TrainingCase.of(str(number), image, label))
    return cases


@pytest.mark.parametrize(
    ("patch", "shape", "slice_axis"),
    [
        ((24, 20, 17), (50, 60, 55), None),
        ((16, 16, 16), (18, 12, 40), None),  # smaller than the patch along one axis
        ((24, 31), (70, 80), None),
        ((24, 20), (40, 9, 50), 1),  # slices of a volume
    ],
)
@pytest.mark.parametrize("moves", [0.0, 0.7])
def test_gathered_patches_equal_cut_and_moved_ones(
    patch: tuple[int, ...], shape: tuple[int, ...], slice_axis: int | None, moves: float
) -> None:
    augmentation = Augmentation(
        flip_axes=tuple(range(len(patch))),
        rotation_deg=(15.0,) * (3 if len(patch) == 3 else 1),
        scale=0.15,
        elastic_mm=0.5,
        p_spatial=moves,
        **QUIET,
    )
    plan, cases = plan_of(patch, augmentation, slice_axis), cases_of(shape)
    resident = ResidentCases.of(cases, plan, CPU)
    for step in range(6):
        batch = make_batch(cases, plan, seed=3, step=step, share=slice(0, 4))
        image, label = apply_augmentation(batch.image, batch.label, batch.draw, patch)
        rows = patch_rows(cases, resident, plan, seed=3, step=step)
        assert rows.case_ids == batch.case_ids
        ours, ours_label, _ = gather_patches(resident, rows.places, rows.floats, plan)
        # Voxels at the border of a volume are mixed with what lies beyond, which is cut away first
        # in one path and last in the other; and nearest neighbours may tie.
        assert float(((ours - image).abs() > 1e-4).float().mean()) < 5e-3
        assert float((ours_label != label).float().mean()) < 5e-3


@pytest.mark.parametrize("patch", [(24, 20, 17), (24, 31)])
def test_branch_free_shades_equal_those_patch_by_patch(patch: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    settings = Augmentation(
        rotation_deg=(0.0,), p_noise=0.0, p_blur=0.6, p_brightness=0.6, p_contrast=0.6, p_gamma=0.6,
        p_low_resolution=0.6,
    )  # fmt: skip
    changed = 0.0
    for _ in range(12):
        draw = draw_augmentation(
            settings, batch_size=5, spacing_mm=(1.0,) * len(patch), generator=generator
        )
        image = torch.randn(5, 2, *patch)
        expected = _shade(image, draw)
        factors = torch.from_numpy(shade_factors(draw, patch)).float()
        torch.testing.assert_close(shade(image, factors, settings), expected, rtol=1e-3, atol=1e-3)
        changed = max(changed, float((expected - image).abs().max()))
    assert changed > 0.5


def test_patches_at_rest_are_not_touched_by_shading() -> None:
    image = torch.randn(3, 1, 12, 10, 8)
    settings = Augmentation(
        rotation_deg=(0.0,), p_noise=0.5, p_blur=0.5, p_brightness=0.5, p_contrast=0.5, p_gamma=0.5,
        p_low_resolution=0.5,
    )  # fmt: skip
    rest = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 12.0, 10.0, 8.0]] * 3)
    torch.testing.assert_close(shade(image, rest, settings), image, rtol=0, atol=0)
