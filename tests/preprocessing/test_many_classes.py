"""More than 256 classes keep their indices from the file to the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.manifest import Case, LabelClass, Manifest
from segmed.plan.schema import Augmentation, Plan, Recipe
from segmed.preprocessing import cache_key, cached_case, prepare, prepare_label
from segmed.training.data import make_batch
from segmed.training.sampling import TrainingCase
from segmed.transforms.labels import index_dtype

NUMBER = 300
SHAPE = (9, 8, 7)


def label_map(values: tuple[int, ...]) -> np.ndarray:
    label = np.zeros(SHAPE, np.int32)
    label.flat[: len(values)] = values
    return label


@pytest.mark.parametrize("first", [1, 1001])
def test_class_indices_do_not_wrap(
    make_plan_for: Callable[..., Plan], make_image: Callable[..., MetaTensor], first: int
) -> None:
    values = tuple(range(first, first + NUMBER))
    plan, image = make_plan_for(values=values), make_image(SHAPE)
    label = MetaTensor(torch.from_numpy(label_map(values))[None], affine=image.affine)
    classes = prepare_label(label, prepare(image, plan), plan)
    expected = label_map(tuple(range(1, NUMBER + 1)))
    np.testing.assert_array_equal(classes.numpy(), expected)


def test_cached_and_drawn_classes_do_not_wrap(
    make_plan_for: Callable[..., Plan], tmp_path: Path
) -> None:
    values = tuple(range(1, NUMBER + 1))
    plan = make_plan_for(values=values)
    rng = np.random.default_rng(0)
    arrays = {"i.nii": rng.normal(size=SHAPE).astype(np.float32), "l.nii": label_map(values)}
    for name, array in arrays.items():
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / name)
    case = Case(id="a", group="a", image=("i.nii",), label="l.nii", fold=0)
    manifest = Manifest(
        name="many",
        labels=tuple(LabelClass(name=f"l{value}", value=value) for value in values),
        channels=plan.channels,
        training=(case,),
        root=tmp_path,
    )
    for _ in range(2):  # written, then mapped
        image, label, _ = cached_case(manifest, case, plan, tmp_path / "cache")
        assert label is not None
        np.testing.assert_array_equal(label.numpy(), label_map(values))
    still = Recipe(augmentation=Augmentation(rotation_deg=(0.0, 0.0, 0.0)))
    drawn = plan.model_copy(update={"recipe": still, "patch_size": SHAPE})
    cases = [TrainingCase.of("a", image, label)]
    batch = make_batch(cases, drawn, seed=0, step=0, share=slice(None))
    assert batch.label.max() > 255
    few = plan.model_copy(update={"labels": plan.labels[:2]})
    assert cache_key(manifest, case, few) != cache_key(manifest, case, plan)


def test_the_smallest_type_that_holds_all_indices() -> None:
    sizes = [256, 257, 32768, 32769]
    assert [index_dtype(size) for size in sizes] == [
        torch.uint8,
        torch.int16,
        torch.int16,
        torch.int32,
    ]
