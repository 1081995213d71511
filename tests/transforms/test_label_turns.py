"""Label maps that are given to the transforms as they are stored, their image beside them."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from small_sets import stored_along

from segmed.errors import GeometryError
from segmed.plan.schema import Plan
from segmed.transforms import KnownLabelsd
from segmed.transforms.chain import IMAGE, LABEL, preparation, prepare, prepare_label

SHAPE = (9, 8, 7)


def along(label: MetaTensor, codes: str, shift_mm: float = 0.0) -> MetaTensor:
    affine = np.asarray(label.affine).copy()
    affine[1, 3] += shift_mm
    one = stored_along(nib.Nifti1Image(label.numpy()[0].astype(np.uint8), affine), codes)
    voxels = torch.from_numpy(np.asarray(one.dataobj).astype(np.int32)[None])
    return MetaTensor(voxels, affine=torch.from_numpy(one.affine))


@pytest.mark.parametrize("codes", ["RAS", "LAS", "ASL", "PSL", "IPR"])
def test_label_transforms_turn_a_label_onto_its_image(
    make_plan_for: Callable[..., Plan], make_image: Callable[..., MetaTensor], codes: str
) -> None:
    plan, image = make_plan_for(), make_image(SHAPE, orientation="LPS")
    values = torch.zeros((1, *SHAPE), dtype=torch.int32)
    values[0, 1:4, 2, 3:6] = 1
    values[0, 5, 1:3, 2] = 2
    label = MetaTensor(values, affine=image.affine)
    stored, aside = along(label, codes), along(label, codes, shift_mm=0.5)
    expected = prepare_label(label, prepare(image, plan), plan)
    assert int((expected > 0).sum()) == 11
    assert torch.equal(prepare_label(stored, prepare(image, plan), plan), expected)
    row = preparation(plan)({IMAGE: image, LABEL: stored})
    assert torch.equal(row[LABEL].as_tensor()[0], expected)
    with pytest.raises(GeometryError, match=r"corners up to 0\.5 mm apart"):
        preparation(plan)({IMAGE: image, LABEL: aside})
    with pytest.raises(GeometryError, match=r"corners up to 0\.5 mm apart"):
        prepare_label(aside, prepare(image, plan), plan)


def test_a_label_without_an_image_beside_it_stays_as_it_is(
    make_image: Callable[..., MetaTensor],
) -> None:
    label = along(MetaTensor(torch.ones((1, *SHAPE)), affine=make_image(SHAPE).affine), "ASL")
    found = KnownLabelsd(LABEL, (0, 1))({LABEL: label})[LABEL]
    assert found.shape == label.shape
    assert torch.equal(found.affine, label.affine)
