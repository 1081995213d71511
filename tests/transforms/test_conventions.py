"""The transforms follow MONAI's conventions: MetaTensor in and out, records, inverses, no lies."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import (
    Compose,
    Invertd,
    InvertibleTransform,
    LazyTransform,
    MapTransform,
    NormalizeIntensity,
    Orientation,
    RandFlipd,
    Transform,
)

from segmed import transforms
from segmed.errors import GeometryError, ImageError, UsageError
from segmed.geometry import Grid, same_grid
from segmed.io import grid_of
from segmed.plan.schema import Intensity, Plan
from segmed.structures import LabelClass
from segmed.transforms import (
    ClassIndices,
    ClipChannels,
    CorrectBias,
    CropBox,
    CropNonzero,
    CropNonzerod,
    KnownLabels,
    Reorient,
    Reorientd,
    ScaleChannels,
    SplineSpacing,
    SplineSpacingd,
    preparation,
    prepared_of,
)
from segmed.transforms.chain import prepare_label
from segmed.transforms.inverse import Slab

PlanMaker = Callable[..., Plan]
ImageMaker = Callable[..., MetaTensor]

ZSCORE, CT = Intensity(scheme="zscore"), Intensity(scheme="ct", low=-1, high=1, mean=0.1, std=2.0)
STEPS = [
    Reorient("LPS"),
    Reorient("LPS", mirror=False),
    CropBox(((1, 4), (0, 3), (2, 6))),
    CropNonzero(),
    SplineSpacing((0.7, 1.1, 1.5)),
    CorrectBias(),
    ClipChannels([CT]),
    ScaleChannels([ZSCORE]),
    KnownLabels([0, 7, 2]),
    ClassIndices([0, 7, 2]),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_array_transform_keeps_metadata_and_never_changes_its_input(
    step: Transform, make_image: ImageMaker
) -> None:
    image = make_image((8, 9, 10), spacing_mm=(1.0, 1.3, 2.0), orientation="PIR")
    if isinstance(step, KnownLabels | ClassIndices):
        labels = torch.tensor([0, 7, 2])[torch.randint(3, (1, 8, 9, 10))]
        image = MetaTensor(labels, affine=image.affine)
    image.meta["patient"] = "kept"
    before, record = image.as_tensor().clone(), copy.deepcopy(image.applied_operations)
    done = step(image)
    assert isinstance(step, Transform)
    assert not isinstance(step, LazyTransform)
    assert isinstance(done, MetaTensor)
    assert done.meta["patient"] == "kept"
    assert torch.equal(image.as_tensor(), before)
    assert image.applied_operations == record
    assert len(done.applied_operations) == isinstance(step, InvertibleTransform)
    plain = step(image.as_tensor())  # as MONAI's, they take tensors and arrays too
    assert plain.shape[0] == 1


DICTIONARY = [name for name in transforms.__all__ if f"{name}d" in transforms.__all__]


@pytest.mark.parametrize("name", DICTIONARY)
def test_dictionary_transforms_are_map_transforms_like_their_array_twins(name: str) -> None:
    twin = getattr(transforms, name)
    assert issubclass(getattr(transforms, f"{name}d"), MapTransform)
    is_invertible = issubclass(getattr(transforms, f"{name}d"), InvertibleTransform)
    assert is_invertible == issubclass(twin, InvertibleTransform)
    assert len(DICTIONARY) == 10


@pytest.mark.parametrize("stored", ["RAS", "LPI", "ASR", "SRP"])
@pytest.mark.parametrize("target", ["RAS", "LPS", "PIR"])
def test_reorient_moves_voxels_and_affine_as_monai_does(
    stored: str, target: str, make_image: ImageMaker
) -> None:
    image = make_image((4, 5, 6), spacing_mm=(0.5, 1.0, 2.0), orientation=stored)
    ours, theirs = Reorient(target)(image), Orientation(target, labels=None)(image)
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-12)
    back = Reorient(target).inverse(ours)
    assert torch.equal(back.as_tensor(), image.as_tensor())
    assert same_grid(grid_of(back), grid_of(image))
    assert back.applied_operations == []
    ordered = Reorient(target, mirror=False)(image)
    assert ordered.as_tensor().data_ptr() == image.as_tensor().data_ptr()  # a view
    codes = Grid(tuple(ordered.shape[1:]), ordered.affine.numpy()).orientation
    assert all(axis in pair for axis, pair in zip(codes, map(_pair, target), strict=True))


def _pair(code: str) -> str:
    return next(pair for pair in ("RL", "AP", "SI") if code in pair)


def test_spacing_mirrors_what_reorient_left_and_every_affine_is_right(
    make_image: ImageMaker,
) -> None:
    image = make_image((6, 7, 8), spacing_mm=(0.8, 1.0, 1.9), orientation="LPI")
    image = MetaTensor(torch.zeros_like(image.as_tensor()), affine=image.affine)
    image[0, 2:4, 3:5, 4:6] = 100.0
    place = image.affine.numpy() @ [2.5, 3.5, 4.5, 1.0]
    for chain in (
        Compose([Reorient("RAS", mirror=False), SplineSpacing((1.0, 1.0, 1.0))]),
        Compose([Reorient("RAS"), SplineSpacing((1.0, 1.0, 1.0))]),
        Compose([SplineSpacing((0.8, 1.0, 1.9)), Reorient("SAR")]),
    ):
        done = chain(image)
        weights = done.as_tensor()[0].clamp(min=0)
        index = torch.nonzero(torch.ones_like(weights)).double().T @ weights.flatten().double()
        centre = done.affine.numpy() @ [*(index / weights.sum()).tolist(), 1.0]
        np.testing.assert_allclose(centre, place, atol=0.06)
    assert grid_of(chain(image)).orientation == "SAR"


@pytest.mark.parametrize("crop", [False, True])
def test_inverse_of_the_chain_equals_its_slabs_bit_for_bit(
    crop: bool, make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    plan = make_plan_for(crop_nonzero=crop, spacing_mm=(1.0, 1.0, 1.0))
    chain = preparation(plan)
    image = make_image((9, 12, 7), spacing_mm=(0.7, 0.7, 1.9), orientation="ALI")
    image[:, :2] = 0
    label = MetaTensor((image.as_tensor() > 1).int(), affine=image.affine)
    row = chain({"image": image, "label": label, "case": "c1"})
    probs = torch.rand(3, *row["image"].shape[1:])
    whole = chain.inverse({**row, "image": _like(probs, row["image"])})
    transform = transforms.prepared_of(row["image"]).transform
    expected = torch.zeros(3, 9, 12, 7)
    for box in chain.inverse_slabs([Slab(0, probs)], transform, 0):
        expected[(slice(None), *box.region)] = box.probs
    assert torch.equal(whole["image"].as_tensor(), expected)
    assert same_grid(grid_of(whole["image"]), grid_of(image))
    assert whole["case"] == "c1"
    assert whole["label"].shape == label.shape
    assert set(whole["label"].unique().tolist()) <= {0, 1}


def _like(voxels: torch.Tensor, image: MetaTensor) -> MetaTensor:
    done = copy.deepcopy(image.applied_operations)
    return MetaTensor(voxels, affine=image.affine, applied_operations=done)


def test_inverse_of_the_chain_works_through_monais_invertd_and_loader(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    chain = preparation(make_plan_for())
    rows = [{"image": make_image((6, 5, 8), spacing_mm=(2.0, 1.0, 1.0), orientation="LPS")}]
    batch = next(iter(DataLoader(Dataset(rows, chain), batch_size=1)))
    batch["pred"] = torch.cat([batch["image"]] * 2, dim=1) * 0 + 1  # as a network gives it
    (row,) = decollate_batch(batch)
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(row)
    assert back["pred"].shape == (2, 6, 5, 8)
    torch.testing.assert_close(back["pred"].as_tensor(), torch.ones(2, 6, 5, 8))


def test_errors_of_steps_keep_their_class_and_reason(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    with pytest.raises(ImageError) as got:
        preparation(make_plan_for(channels=2))({"image": make_image((3, 3, 3))})
    assert got.value.reason == "channels"
    chain = preparation(make_plan_for())
    row = chain({"image": make_image((3, 3, 3))})
    other = _like(torch.zeros(1, 4, 3, 3), row["image"])
    with pytest.raises(GeometryError, match="prepared grid"):
        chain.inverse({"image": other})
    with pytest.raises(UsageError, match="got a str; for paths"):
        preparation(make_plan_for())({"image": "no tensor"})


LAZY_STEPS = [
    lambda: Reorient("RAS", lazy=True),
    lambda: SplineSpacing((1.0, 1.0, 1.0), lazy=True),
    lambda: CropBox(((0, 1),), lazy=True),
    lambda: CropNonzero(lazy=True),
    lambda: Reorientd("image", "RAS", lazy=True),
    lambda: CropNonzerod("image", "image", lazy=True),
    lambda: SplineSpacingd("image", (1.0, 1.0, 1.0), lazy=True),
]


@pytest.mark.parametrize("make", LAZY_STEPS)
def test_lazy_is_refused_by_name(make: Callable[[], Transform]) -> None:
    with pytest.raises(UsageError, match=r"^\w+ cannot be lazy: .*leave lazy=False"):
        make()


def test_pending_operations_are_refused_by_name(make_image: ImageMaker) -> None:
    pending = Orientation("LPS", labels=None, lazy=True)(make_image((4, 5, 6)))
    for step in (Reorient("RAS"), CropNonzero(), SplineSpacing((2.0, 2.0, 2.0))):
        with pytest.raises(UsageError, match="pending are Orientation"):
            step(pending)


def test_another_transform_between_the_steps_is_undone_in_order(make_image: ImageMaker) -> None:
    image = make_image((6, 8, 10), spacing_mm=(2.0, 1.0, 1.0))
    chain = Compose(
        [
            Reorientd("image", "LPS"),
            RandFlipd("image", prob=1.0, spatial_axis=1),
            SplineSpacingd("image", (1.0, 1.0, 1.0), order=1),
            CropNonzerod("image", "image"),
        ]
    )
    done = chain({"image": image})["image"]
    assert grid_of(done).orientation == "LAS"
    back = chain.inverse({"image": done})["image"]
    assert same_grid(grid_of(back), grid_of(image))
    assert float((back.as_tensor() - image.as_tensor()).abs().mean()) < 0.5


def test_inverse_out_of_order_is_refused(make_image: ImageMaker) -> None:
    done = CropBox(((0, 2), (0, 2), (0, 2)))(Reorient("LPS")(make_image((4, 4, 4))))
    with pytest.raises(UsageError, match="is CropBox, not Reorient"):
        Reorient("LPS").inverse(done)


def test_class_indices_come_back_as_the_values_they_were(make_image: ImageMaker) -> None:
    values = [0, 300, 7, 255]
    label = torch.tensor(values)[torch.arange(24) % 4].reshape(1, 2, 3, 4)
    step = ClassIndices(values)
    done = step(KnownLabels(values)(label))
    assert done.dtype == torch.uint8
    assert torch.equal(step.inverse(done).as_tensor().long(), label)
    with pytest.raises(ImageError, match=r"values \[9\] that are not labels"):
        KnownLabels(values)(label.clone().fill_(9))


def test_regions_and_unannotated_voxels_pass_the_chain_and_come_back(
    make_plan_for: PlanMaker, make_image: ImageMaker
) -> None:
    regions = (
        LabelClass(name="whole", value=4, region=(4, 7, 1)),
        LabelClass(name="core", value=7, region=(7, 1)),
        LabelClass(name="inner", value=1),
    )
    plan = Plan.model_validate(
        make_plan_for(orientation="LPS").model_dump() | {"labels": regions, "ignore_value": 9}
    )
    image = make_image((2, 3, 5))
    label = torch.tensor([0, 4, 7, 1, 9])[torch.arange(30) % 5].reshape(1, 2, 3, 5)
    chain = preparation(plan)
    done = chain({"image": image, "label": MetaTensor(label, affine=image.affine)})
    indices = done["label"]
    assert indices.flatten().unique().tolist() == [0, 1, 2, 3, 4]
    turned = label.flip(1, 2)  # to LPS
    assert torch.equal(torch.tensor([0, 4, 7, 1, 9])[indices.long().as_tensor()], turned)
    alone = prepare_label(MetaTensor(label, affine=image.affine), prepared_of(done["image"]), plan)
    assert torch.equal(alone, indices.as_tensor()[0])
    assert torch.equal(chain.inverse(done)["label"].as_tensor().long(), label)
    with pytest.raises(ImageError, match=r"values \[2\] that are not labels"):
        chain({"image": image, "label": MetaTensor(label.clone().fill_(2), affine=image.affine)})


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (ZSCORE, {"channel_wise": True}),
        (Intensity(scheme="zscore", nonzero=True), {"channel_wise": True, "nonzero": True}),
        (Intensity(scheme="ct", mean=0.25, std=3.0), {"subtrahend": 0.25, "divisor": 3.0}),
    ],
)
def test_scaling_has_the_meaning_of_monais(
    rule: Intensity, options: dict[str, object], make_image: ImageMaker
) -> None:
    """MONAI's measures after resampling and holds the whole image twice; values are the same."""
    image = make_image((12, 11, 10))
    image[:, :3] = 0
    torch.testing.assert_close(
        ScaleChannels([rule])(image).as_tensor(),
        NormalizeIntensity(**options)(image).as_tensor(),
        atol=1e-5,
        rtol=1e-5,
    )
