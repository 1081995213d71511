"""Networks that users register keep the contract of the built-in ones."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import contract
import pytest
import torch
from torch import Tensor, nn

from segmed.architectures import PlannedInput, register_architecture, registered_architecture
from segmed.errors import ModelError, UsageError
from segmed.models import build_model, describe_model, list_models

needs_einops = pytest.mark.skipif(
    importlib.util.find_spec("einops") is None, reason="SwinUNETR of MONAI needs einops"
)

every_network = pytest.mark.parametrize(
    ("name", "dims"),
    [
        ("segresnet", 2),
        ("segresnet", 3),
        pytest.param("swin_unetr", 2, marks=needs_einops),
        pytest.param("swin_unetr", 3, marks=[needs_einops, pytest.mark.slow]),
    ],
)


def planned(name: str, dims: int) -> nn.Module:
    """The network as a plan builds it."""
    entry = registered_architecture(name)
    assert entry is not None
    options = entry.options_for(
        PlannedInput(dims, 2, 3, (40,) * dims, (1.0,) * dims, ((1,) * dims,))
    )
    torch.manual_seed(0)
    return build_model(name, spatial_dims=dims, in_channels=2, num_classes=3, **options)


@every_network
@pytest.mark.usefixtures("monai_networks")
def test_registered_network_keeps_the_contract(name: str, dims: int, tmp_path: Path) -> None:
    build = partial(planned, name)
    contract.has_logits_on_the_input_grid(build, dims)
    contract.gives_every_parameter_a_gradient(build, dims)
    contract.is_deterministic_in_evaluation(build, dims)
    contract.gives_equal_logits_after_save_and_load(build, dims, tmp_path)
    contract.saves_no_tensor_twice(build(dims))
    for side in (1, 23):
        contract.keeps_the_size(build, dims, side)
    contract.refuses_another_number_of_channels(build, dims)


class Heads(nn.Module):
    """One convolution whose outputs are what a test asks for."""

    def __init__(self, give: Any, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, classes, 1)
        self.give = give

    def forward(self, image: Tensor) -> Any:
        """The convolution's output, as `give` changes it."""
        return self.give(self.conv(image))


def _registered_heads(give: Any, **keywords: Any) -> nn.Module:
    def build(*, spatial_dims: int, in_channels: int, num_classes: int) -> nn.Module:
        return Heads(give, num_classes)

    register_architecture("heads", build, **keywords)
    return build_model("heads", spatial_dims=2, in_channels=1, num_classes=3)


IMAGE = torch.zeros(2, 1, 9, 7)


@pytest.mark.usefixtures("no_registrations")
@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda out: out[:, :2], r"returns \(2, 2, 9, 7\).*must have shape \(2, 3, 9, 7\)"),
        (lambda out: out[..., ::2], r"returns \(2, 3, 9, 4\)"),
        (lambda out: out.mean(dim=0), r"returns \(3, 9, 7\)"),
        (lambda out: {"out": out}, "must return a tensor of logits.*got dict"),
        (lambda out: [out, out], "returns 2 outputs in evaluation"),
        (lambda out: [], "got list"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(give: Any, message: str) -> None:
    network = _registered_heads(give).eval()
    with pytest.raises(ModelError, match=message):
        network(IMAGE)


@pytest.mark.usefixtures("no_registrations")
def test_heads_are_a_list_in_training_and_one_tensor_in_evaluation() -> None:
    heads = _registered_heads(lambda out: [out, out]).train()(IMAGE)
    assert [tuple(head.shape) for head in heads] == [(2, 3, 9, 7)] * 2
    assert isinstance(_registered_heads(lambda out: [out]).eval()(IMAGE), Tensor)


@pytest.mark.usefixtures("no_registrations")
def test_inputs_are_padded_to_the_multiple_and_logits_cropped() -> None:
    seen: list[tuple[int, ...]] = []

    def give(out: Tensor) -> Tensor:
        seen.append(tuple(out.shape[2:]))
        return out

    network = _registered_heads(give, size_multiple=(8, 4))
    assert network(IMAGE).shape == (2, 3, 9, 7)
    assert seen == [(16, 8)]


@pytest.mark.usefixtures("no_registrations")
@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("unet", {}, "'unet' is a built-in architecture"),
        ("my net", {}, "invalid name of an architecture 'my net'"),
        ("../net", {}, "invalid name"),
        ("all", {}, "invalid name"),
        ("", {}, "invalid name"),
        ("net", {"size_multiple": 0}, "size_multiple of 'net' must be positive, got 0"),
        ("net", {"size_multiple": ()}, "size_multiple"),
        ("net", {"spatial_dims": (3, 4)}, "spatial_dims"),
        ("net", {"learning_rate": 3}, "learning_rate of 'net' must be in 0..1, got 3"),
        ("net", {"plan_options": {"a": 1}}, "plan_options of 'net' must be a function"),
    ],
)
def test_wrong_registrations_are_refused(name: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        register_architecture(name, Heads, **keywords)
    assert name not in list_models() or name == "unet"


@pytest.mark.usefixtures("no_registrations")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda **task: "net", "must return a torch.nn.Module, got str"),
        (lambda spatial_dims: None, "cannot be built with options"),
        (lambda **task: [][1:].index(1), "cannot be built"),
    ],
)
def test_builders_that_fail_are_named(build: Any, message: str) -> None:
    register_architecture("net", build)
    with pytest.raises(ModelError, match=f"net.*{message}|build of net {message}"):
        build_model("net", spatial_dims=3, in_channels=1, num_classes=2)


@pytest.mark.usefixtures("no_registrations")
def test_dimensions_presets_and_descriptions_are_those_of_the_registration() -> None:
    register_architecture("flat", lambda **task: Heads(None, 2), spatial_dims=(2,))
    with pytest.raises(ModelError, match="flat is registered for 2D, not for 3D"):
        build_model("flat", spatial_dims=3, in_channels=1, num_classes=2)
    with pytest.raises(ModelError, match="has no preset 'paper'"):
        build_model("flat", spatial_dims=2, in_channels=1, num_classes=2, preset="paper")
    with pytest.raises(UsageError, match="'flat' is a registered architecture"):
        describe_model("flat", spatial_dims=2, in_channels=1, num_classes=2)


@pytest.mark.usefixtures("no_registrations")
@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.zeros(2), len])
def test_options_that_no_plan_can_represent_are_refused(value: object) -> None:
    register_architecture("net", lambda **task: Heads(None, 2), lambda planned: {"x": value})
    entry = registered_architecture("net")
    assert entry is not None
    with pytest.raises(ModelError, match="plan_options of 'net' must return JSON values"):
        entry.options_for(PlannedInput(2, 1, 2, (8, 8), (1.0, 1.0), ((1, 1),)))
