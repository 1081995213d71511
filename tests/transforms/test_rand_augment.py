"""The random changes of training as MONAI transforms: one draw, one case or a whole batch."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, Randomizable

from segmed.errors import UsageError
from segmed.plan.schema import Augmentation
from segmed.transforms import RandAugment, RandAugmentd

BUSY = Augmentation(rotation_deg=(40.0,) * 3, p_spatial=1.0, elastic_mm=1.0, flip_axes=(0,),
                    p_noise=1.0, p_gamma=1.0)  # fmt: skip
EDGES = (1.0, 1.0, 2.0)


def sample(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.rand((batch, 2, 12, 10, 8), generator=torch.Generator().manual_seed(0))
    return image, (image[:, :1] > 0.7).to(torch.uint8)


def test_batch_is_changed_by_one_draw_and_the_same_draw_again() -> None:
    image, label = sample(3)
    step = RandAugment(BUSY, EDGES).set_random_state(5)
    moved, classes = step(image, label)
    assert moved.shape == image.shape
    assert classes.shape == label.shape
    assert not torch.equal(moved[0] - image[0], moved[1] - image[1])
    again = step(image, label, randomize=False)
    assert torch.equal(again[0], moved)
    assert torch.equal(again[1], classes)
    other = RandAugment(BUSY, EDGES).set_random_state(5)(image, label)
    assert torch.equal(other[0], moved)
    assert not torch.equal(step(image, label)[0], moved)


def test_case_is_the_batch_of_one_and_keeps_its_metadata() -> None:
    image, label = sample(1)
    step = RandAugment(BUSY, EDGES).set_random_state(7)
    moved, classes = step(image, label)
    affine = torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0], dtype=torch.float64))
    case = MetaTensor(image[0], affine=affine)
    one, picked = step(case, MetaTensor(label[0], affine=affine), randomize=False)
    assert isinstance(one, MetaTensor)
    assert torch.equal(one.as_tensor(), moved[0])
    assert torch.equal(picked.as_tensor(), classes[0])
    assert torch.equal(one.affine, affine)


def test_source_is_cut_larger_so_that_corners_are_of_the_image() -> None:
    step = RandAugment(BUSY, EDGES).set_random_state(1)
    step.randomize(2)
    size = step.source_size((8, 8, 8))
    assert all(have >= need for have, need in zip(size, (8, 8, 8), strict=True))
    found = step(torch.rand(2, 1, *size), patch_size=(8, 8, 8), randomize=False)
    assert found.shape == (2, 1, 8, 8, 8)


def test_dictionary_transform_runs_in_a_compose_with_a_seed() -> None:
    chain = Compose([RandAugmentd("image", "label", BUSY, EDGES)])
    assert isinstance(chain.transforms[0], Randomizable)
    assert isinstance(chain.transforms[0], MapTransform)
    image, label = sample(1)
    row = {"image": image[0], "label": label[0], "case": "c"}
    first = chain.set_random_state(3)(row)
    second = chain.set_random_state(3)(row)
    assert torch.equal(first["image"], second["image"])
    assert set(first["label"].unique().tolist()) <= {0, 1}
    assert torch.equal(chain.set_random_state(3)({"image": image[0]})["image"], first["image"])


def test_other_shapes_and_a_missing_draw_are_refused() -> None:
    step = RandAugment(BUSY, EDGES)
    with pytest.raises(UsageError, match="call randomize first"):
        step.source_size((8, 8, 8))
    with pytest.raises(UsageError, match=r"takes \[C, \*spatial\] or"):
        step(torch.rand(4, 4))
