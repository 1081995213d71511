"""Changes are drawn first, applied after, and keep image and label together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segmed.plan import Augmentation
from segmed.training.sampling import cut
from segmed.transforms.augmentation import (
    AugmentationDraw,
    apply_augmentation,
    draw_augmentation,
    source_size,
)

SPACING = {2: (1.0, 1.0), 3: (1.0, 1.0, 1.0)}


def still(axes: int, batch_size: int = 1) -> AugmentationDraw:
    """A draw in which nothing happens."""
    settings = Augmentation(
        rotation_deg=(0.0,) * (1 if axes == 2 else 3),
        p_spatial=0,
        p_noise=0,
        p_blur=0,
        p_brightness=0,
        p_contrast=0,
        p_gamma=0,
        p_low_resolution=0,
    )
    return draw_augmentation(
        settings,
        batch_size=batch_size,
        spacing_mm=SPACING[axes],
        generator=np.random.default_rng(0),
    )


def blob(axes: int, size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose bright part is exactly its label, off the centre."""
    label = torch.zeros((1, *[size] * axes), dtype=torch.long)
    label[(0, *[slice(4 + 2 * axis, 12 + axis) for axis in range(axes)])] = 1
    return label[:, None].float(), label


@pytest.mark.parametrize("axes", [2, 3])
def test_a_draw_at_rest_changes_nothing(axes: int) -> None:
    image, label = blob(axes)
    moved, moved_label = apply_augmentation(image, label, still(axes), label.shape[1:])
    assert torch.equal(moved, image)
    assert torch.equal(moved_label, label)


@pytest.mark.parametrize("axes", [2, 3])
def test_flip_mirrors_image_and_label_along_the_drawn_axis_only(axes: int) -> None:
    image, label = blob(axes)
    flips = np.zeros((1, axes), dtype=bool)
    flips[0, 1] = True
    draw = replace(still(axes), flips=flips)
    moved, moved_label = apply_augmentation(image, label, draw, label.shape[1:])
    assert torch.equal(moved, image.flip(3))
    assert torch.equal(moved_label, label.flip(2))


def test_quarter_turn_in_the_plane_is_exact() -> None:
    label = torch.zeros((1, 25, 25), dtype=torch.long)
    label[0, 3:9, 10:14] = 1
    draw = replace(still(2), rotation_rad=np.array([[np.pi / 2]]))
    image, moved = apply_augmentation(label[:, None].float(), label, draw, (25, 25))
    assert torch.equal(moved, torch.rot90(label, 1, (1, 2))) or torch.equal(
        moved, torch.rot90(label, -1, (1, 2))
    )
    assert torch.equal(image[:, 0].round().long(), moved)


@pytest.mark.parametrize("axes", [2, 3])
def test_moved_image_and_label_stay_on_each_other(axes: int) -> None:
    image, label = blob(axes, size=32)
    turns = np.full((1, 1 if axes == 2 else 3), 0.3)
    draw = replace(still(axes), rotation_rad=turns, zoom=np.array([1.1]))
    moved, moved_label = apply_augmentation(image, label, draw, (32,) * axes)
    overlap = ((moved[:, 0] > 0.5) == (moved_label == 1)).float().mean()
    assert overlap > 0.99
    assert not torch.equal(moved_label, label)


def test_zoom_enlarges_the_content() -> None:
    image, label = blob(3, size=32)
    draw = replace(still(3), zoom=np.array([1.25]))
    _, moved = apply_augmentation(image, label, draw, (32, 32, 32))
    assert float(moved.sum()) / float(label.sum()) == pytest.approx(1.25**3, rel=0.15)


def test_source_is_large_enough_that_a_turned_patch_sees_no_border() -> None:
    volume = torch.zeros(1, 60, 60)
    volume[:, 15:45, 15:45] = 1.0
    draw = replace(still(2), rotation_rad=np.array([[0.4]]))
    size = source_size((20, 20), draw)
    source = cut(volume, (30, 30), size, fill=0.0)
    moved, _ = apply_augmentation(
        source[None], torch.zeros((1, *size), dtype=torch.long), draw, (20, 20)
    )
    assert float(moved.min()) == pytest.approx(1.0, abs=1e-5)


def test_rotation_is_one_in_space_not_in_voxels() -> None:
    """With voxels twice as long along axis 1, a quarter turn of a square changes little."""
    label = torch.zeros((1, 33, 33), dtype=torch.long)
    label[0, 12:21, 14:19] = 1  # 9 x 5 voxels are about 9 x 10 mm at 1 x 2 mm
    draw = replace(still(2), rotation_rad=np.array([[np.pi / 2]]), spacing_mm=(1.0, 2.0))
    _, moved = apply_augmentation(label[:, None].float(), label, draw, (33, 33))
    rows, columns = (moved[0] == 1).any(1).sum(), (moved[0] == 1).any(0).sum()
    assert 9 <= int(rows) <= 11
    assert 4 <= int(columns) <= 5


def test_same_generator_gives_the_same_draw_and_another_gives_another() -> None:
    settings = Augmentation(rotation_deg=(20.0, 20.0, 20.0), p_spatial=1, p_noise=1)

    def draw(seed: int) -> AugmentationDraw:
        return draw_augmentation(
            settings, batch_size=4, spacing_mm=SPACING[3], generator=np.random.default_rng(seed)
        )

    assert np.array_equal(draw(1).rotation_rad, draw(1).rotation_rad)
    assert not np.array_equal(draw(1).rotation_rad, draw(2).rotation_rad)


def test_intensity_changes_leave_the_label_alone_and_change_the_image() -> None:
    image = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    label = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    for name, value in {
        "noise_std": 0.1,
        "blur_voxels": 1.0,
        "brightness": 1.2,
        "contrast": 1.3,
        "gamma": 0.8,
        "low_resolution": 0.5,
    }.items():
        draw = replace(still(2, batch_size=2), **{name: np.array([value, value])})
        moved, moved_label = apply_augmentation(image, label, draw, (16, 16))
        assert moved.shape == image.shape
        assert torch.equal(moved_label, label), name
        assert not torch.allclose(moved, image), name
        assert torch.isfinite(moved).all(), name


def test_one_process_of_a_group_gets_the_changes_of_its_own_patches() -> None:
    settings = Augmentation(rotation_deg=(20.0, 20.0, 20.0), p_spatial=1)
    draw = draw_augmentation(
        settings, batch_size=4, spacing_mm=SPACING[3], generator=np.random.default_rng(3)
    )
    part = draw.part(slice(2, 4))
    assert np.array_equal(part.zoom, draw.zoom[2:])
    assert part.flips.shape == (2, 3)
