"""Public calls refuse arguments of another type, shape or number type in one line, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import pytest
import torch
from tiny_data import hippocampus_package, tiny_plan, write_set

import segmed
from segmed.doors import checked, kinds_of
from segmed.errors import ModelError, UsageError
from segmed.inference import SlabInferer
from segmed.io import read_image, read_images
from segmed.losses import list_losses, make_loss
from segmed.manifest import Manifest, read_manifest
from segmed.metatensor import MetaTensor
from segmed.plan import Plan
from segmed.preprocessing import PreparedCases, PreparedDataset
from segmed.transforms import CropBox, Reorient, SplineSpacing, preparation

DOORS: list[Callable[..., Any]] = [
    segmed.read_image,
    segmed.build_manifest,
    segmed.make_plan,
    segmed.train,
    segmed.evaluate,
    segmed.build_model,
    segmed.Predictor.__init__,
    segmed.Predictor.load,
    segmed.ModelPackage.load,
    Manifest.read,
    PreparedCases.__init__,
    PreparedDataset.__init__,
    SlabInferer.__init__,
    preparation,
    make_loss,
]
PLAN = tiny_plan()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_set(tmp_path_factory.mktemp("set"), training=2))


@pytest.fixture(scope="module")
def package() -> segmed.ModelPackage:
    return hippocampus_package()


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__qualname__)
def test_types_of_all_arguments_of_a_door_are_known(door: Callable[..., Any]) -> None:
    call = inspect.unwrap(door)
    assert door is not call or inspect.ismethod(door), "it is not checked"
    names = {
        parameter.name
        for parameter in inspect.signature(call).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in {"self", "cls"}
    }
    assert names <= set(kinds_of(call))


def trained(manifest: Manifest, out: Path | None, **changes: Any) -> None:
    call = {"architecture": "unet", "fold": 0, "budget": "10s", "out": out, "device": "cpu"}
    segmed.train(manifest, PLAN, **(call | changes))


WRONG: list[tuple[Callable[[Any, Any, Path], Any], str]] = [
    (lambda m, p, out: segmed.read_image(3), r"^path is a int: read_image takes Path or str or "),
    (lambda m, p, out: read_image(np.zeros((3, 3))), "path is a ndarray: read_image"),
    (lambda m, p, out: read_images("scan.nii"), "paths is a str: read_images takes a list of"),
    (lambda m, p, out: segmed.build_manifest(None), "source is a NoneType: build_manifest"),
    (lambda m, p, out: segmed.make_plan(m, memory_gb="4"), "memory_gb is a str: make_plan takes "),
    (lambda m, p, out: segmed.make_plan(m, progress=3), "progress is a int: .* a function or None"),
    (lambda m, p, out: trained(m, None), "out is a NoneType: train takes Path or str"),
    (lambda m, p, out: trained(m, out, architecture=None), "architecture is a NoneType"),
    (lambda m, p, out: trained(m, out, fold="0"), "fold is a str: train takes int"),
    (lambda m, p, out: trained(m, out, seed="x"), "seed is a str: train takes int"),
    (lambda m, p, out: trained(m, out, on_epoch=3), "on_epoch is a int: train takes a function"),
    (lambda m, p, out: segmed.evaluate(None, m), "model is a NoneType: evaluate takes ModelPack"),
    (lambda m, p, out: segmed.evaluate(p, m, cases=3), "cases is a int: evaluate takes a list"),
    (lambda m, p, out: segmed.evaluate(p, m, cases="case0"), "cases is a str: evaluate"),
    (lambda m, p, out: segmed.Predictor(None), "made of packages, got a NoneType"),
    (lambda m, p, out: segmed.Predictor(p, device=3), "device is a int: Predictor takes str"),
    (lambda m, p, out: segmed.Predictor.load(None), r"model is a NoneType: Predictor\.load takes"),
    (lambda m, p, out: segmed.ModelPackage.load(3), r"path is a int: ModelPackage\.load takes"),
    (lambda m, p, out: built(name=3), "name is a int: build_model takes str"),
    (lambda m, p, out: built(in_channels=1.5), "in_channels is a float: build_model takes int"),
    (lambda m, p, out: m.read(3), r"case is a int: Manifest\.read takes Case or str"),
    (lambda m, p, out: PreparedDataset(3, PLAN, out), "manifest is a int: PreparedDataset"),
    (lambda m, p, out: PreparedDataset(m, None, out), "plan is a NoneType: PreparedDataset"),
    (lambda m, p, out: SlabInferer(8), "roi_size is a int: SlabInferer takes a list of int"),
    (lambda m, p, out: preparation(3), "plan is a int: preparation takes Plan"),
    (lambda m, p, out: Reorient(None), "orientation is a NoneType: Reorient takes str"),
    (lambda m, p, out: SplineSpacing(1.0), "spacing_mm is a float: SplineSpacing takes a list of"),
    (lambda m, p, out: CropBox(3), "box is a int: CropBox takes a list of"),
    (lambda m, p, out: make_loss(3, num_classes=2), "name is a int: make_loss takes str"),
]


def built(**changes: Any) -> torch.nn.Module:
    call = {"name": "unet", "spatial_dims": 3, "in_channels": 1, "num_classes": 2}
    return segmed.build_model(**(call | {"widths": [4, 8]} | changes))


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_argument_of_another_type_is_refused_by_its_name(
    call: Callable[[Any, Any, Path], Any],
    message: str,
    manifest: Manifest,
    package: segmed.ModelPackage,
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        call(manifest, package, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def image(*shape: int) -> MetaTensor:
    return MetaTensor(torch.zeros(shape), affine=torch.eye(4))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "the entry 'image', got an empty one"),
        ({"img": image(1, 4, 4, 4)}, "the entry 'image', got img"),
        (torch.zeros(1, 4, 4, 4), "a dictionary with the entry 'image', got a Tensor"),
        ({"image": torch.zeros(1, 4, 4, 4)}, "'image' as a MetaTensor, got a Tensor"),
        (
            {"image": image(1, 4, 4, 4), "label": torch.zeros(1, 4, 4, 4)},
            "'label' as a MetaTensor, got a Tensor",
        ),
    ],
)
def test_row_of_the_chain_has_metatensors_under_their_names(row: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        preparation(PLAN)(row)


def test_transforms_take_real_numbers_alone() -> None:
    with pytest.raises(UsageError, match=r"Reorient takes an image as a tensor .* got a str"):
        Reorient("RAS")("scan.nii")
    with pytest.raises(UsageError, match=r"Reorient takes an image of real .*complex64.*absolute"):
        Reorient("RAS")(torch.zeros(1, 3, 3, 3, dtype=torch.complex64))


@pytest.mark.parametrize("name", ["unet", "fcn8s", "deeplabv3plus"])
def test_network_refuses_numbers_that_it_cannot_compute_with(name: str) -> None:
    network = segmed.build_model(name, spatial_dims=2, in_channels=1, num_classes=2, preset="paper")
    with pytest.raises(ModelError, match=r"floating-point numbers, got torch\.int32"):
        network(torch.zeros(1, 1, 64, 64, dtype=torch.int32))
    with pytest.raises(ModelError, match="floating-point numbers, got float64"):
        network(np.zeros((1, 1, 64, 64)))


@pytest.mark.parametrize("name", list_losses())
def test_loss_refuses_logits_of_another_number_of_classes(name: str) -> None:
    logits, target = torch.randn(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.long)
    with pytest.raises(UsageError, match="logits have 3 channels, this loss is of 4 classes"):
        make_loss(name, num_classes=4)(logits, target)


class Options(TypedDict, total=False):
    many: int


@checked("own")
def call(
    text: str,
    own: int,
    number: float = 1.0,
    rows: Sequence[int] | None = None,
    table: Mapping[str, int] | None = None,
    word: Literal["a", "b"] = "a",
    plan: Plan | None = None,
    **options: Unpack[Options],
) -> str:
    """A call of each kind of argument."""
    return text


def test_numbers_arrays_and_own_checks_pass() -> None:
    assert call("t", "checked by itself", np.float32(2)) == "t"
    assert call("t", 1, 2, np.zeros(3)) == "t"
    assert call("t", 1, rows=(), table={}, word="z", many=np.int64(3)) == "t"
    for wrong in (
        {"number": True},
        {"number": "1"},
        {"rows": "12"},
        {"rows": {}},
        {"table": []},
        {"plan": {}},
        {"many": 1.5},
    ):
        (name,) = wrong
        with pytest.raises(UsageError, match=rf"^{name} is a \w+: call takes "):
            call("t", 1, **wrong)


def test_missing_and_unknown_arguments_stay_errors_of_python() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'own'"):
        call("t")
    with pytest.raises(TypeError, match="multiple values"):
        call("t", 1, text="u")
