"""Wrong shapes, types and options of the array transforms are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from segmed.errors import ImageError, SegmedError, UsageError
from segmed.metatensor import MetaTensor
from segmed.plan.schema import Intensity
from segmed.transforms import (
    ClassIndices,
    ClassIndicesd,
    ClipChannels,
    CorrectBias,
    CropBox,
    CropBoxd,
    CropNonzero,
    KnownLabels,
    Reorient,
    ScaleChannels,
    SplineSpacing,
)

RULES = [Intensity(scheme="zscore")]
STEPS: list[Callable[[Any], Any]] = [
    CorrectBias(),
    Reorient("LPS"),
    CropBox(((1, 3), (0, 4), (2, 5))),
    CropNonzero(),
    ClipChannels(RULES),
    ScaleChannels(RULES),
    SplineSpacing((2.0, 2.0, 2.0)),
    KnownLabels([0, 1]),
    ClassIndices([0, 1]),
]


def name_of(step: object) -> str:
    return type(step).__name__


def image(*shape: int, dtype: torch.dtype = torch.float32) -> MetaTensor:
    voxels = torch.arange(torch.Size(shape).numel()).reshape(shape) % 2
    return MetaTensor(voxels.to(dtype), affine=torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_a_batch_an_empty_axis_and_too_few_axes_are_no_image(step: Callable[[Any], Any]) -> None:
    assert step(image(1, 6, 7, 5)).shape[0] == 1
    with pytest.raises(UsageError, match=rf"{name_of(step)} .*\(2, 1, 6, 7, 5\).* one image at a"):
        step(image(2, 1, 6, 7, 5))
    with pytest.raises(UsageError, match=rf"{name_of(step)} .*with voxels, got .*\(1, 0, 3, 3\)"):
        step(image(1, 0, 3, 3))
    with pytest.raises(UsageError, match=rf"{name_of(step)} .*\(6, 7\)$"):
        step(image(6, 7))


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.bool])
@pytest.mark.parametrize("order", [1, 3, (0, 0, 1)])
def test_integers_are_not_interpolated(dtype: torch.dtype, order: Any) -> None:
    with pytest.raises(UsageError, match=rf"floating-point voxels, got {dtype}.*give order=0"):
        SplineSpacing((2.0, 2.0, 2.0), order=order)(image(1, 6, 7, 5, dtype=dtype))
    nearest = SplineSpacing((2.0, 2.0, 2.0), order=0)(image(1, 6, 7, 5, dtype=torch.int16))
    assert nearest.dtype is torch.int16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SplineSpacing((-1.0, 1.0, 1.0)), "spacing_mm must be positive"),
        (lambda: SplineSpacing((0.0, 1.0, 1.0)), "spacing_mm must be positive"),
        (lambda: SplineSpacing((float("nan"), 1.0, 1.0)), "spacing_mm must be positive"),
        (lambda: SplineSpacing((1.0, 1.0, 1.0), order=(3, 3)), "2 orders for 3 axes"),
        (lambda: SplineSpacing((1.0, 1.0, 1.0), order=2), "order must be one of"),
        (lambda: Reorient("RA"), "got 'RA'"),
        (lambda: Reorient("RRA"), "got 'RRA'"),
        (lambda: Reorient("ras"), "got 'ras'"),
        (lambda: CropBox(((-1, 3), (0, 4))), "box must be"),
        (lambda: CropBox(((3, 3), (0, 4))), "box must be"),
        (lambda: ClassIndices([0, 1, 1]), "must be different"),
        (lambda: ClassIndices([0, -1]), "not negative"),
    ],
)
def test_options_without_a_meaning_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("step", "given", "message"),
    [
        (CropBox(((0, 9), (0, 4), (0, 5))), image(1, 6, 7, 5), "does not fit into an image of"),
        (CropBox(((0, 3), (0, 4))), image(1, 6, 7, 5), "does not fit into an image of"),
        (CropBoxd("a", ((0, 9), (0, 4))), {"a": image(1, 6, 7)}, "does not fit into an image of"),
        (CorrectBias([True, False]), image(1, 6, 7, 5), "2 flags, the image 1 channels"),
        (SplineSpacing((1.0, 1.0)), image(1, 6, 7, 5), "2 axes, the image has 3"),
    ],
)
def test_steps_that_do_not_fit_an_image_say_so(step: Any, given: Any, message: str) -> None:
    with pytest.raises(SegmedError, match=message):
        step(given)


@pytest.mark.parametrize("values", [[0, 3], [0, 2], [0, 3, 7]])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_values_that_are_no_label_never_become_background(
    values: list[int], dtype: torch.dtype
) -> None:
    with pytest.raises(ImageError, match=r"values \[1(\.0)?\] that are not") as caught:
        ClassIndices(values)(image(1, 4, 4, 4, dtype=dtype))
    assert caught.value.reason == "unknown_label"
    with pytest.raises(ImageError, match="are not labels"):
        ClassIndicesd("label", values)({"label": image(1, 4, 4, 4, dtype=dtype)})


@pytest.mark.parametrize("step", [KnownLabels([0, 1]), ClassIndices([0, 1])], ids=name_of)
def test_interpolated_labels_are_not_rounded(step: Callable[[Any], Any]) -> None:
    with pytest.raises(ImageError, match=r"values \[0.5\] that are not labels"):
        step(MetaTensor(image(1, 4, 4, 4).as_tensor() * 0.5))


def test_float_label_maps_as_monai_loads_them_become_class_indices() -> None:
    given = MetaTensor(image(1, 4, 4, 4).as_tensor() * 3)
    assert torch.equal(
        ClassIndices([0, 3])(given).as_tensor(), (given.as_tensor() > 0).to(torch.uint8)
    )


def test_a_box_of_a_dictionary_is_cut_and_put_back() -> None:
    step = CropBoxd(["a", "b"], ((1, 3), (0, 4), (2, 5)), allow_missing_keys=True)
    row = {"a": image(1, 6, 7, 5)}
    cut = step(row)
    assert torch.equal(cut["a"].as_tensor(), row["a"].as_tensor()[:, 1:3, 0:4, 2:5])
    back = step.inverse(cut)["a"].as_tensor()
    assert back.shape == (1, 6, 7, 5)
    assert torch.equal(back[:, 1:3, 0:4, 2:5], cut["a"].as_tensor())
    assert float(back.sum()) == float(cut["a"].sum())
