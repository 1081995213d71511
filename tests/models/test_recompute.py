"""Decoders whose maps are computed again have the same gradients, and need less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from segmed.errors import ModelError
from segmed.models import build_model
from segmed.plan.step_memory import TrainedNetwork, step_bytes

DENSE = ("unetpp", "unet3plus")


def network(name: str, dims: int, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model(
        name, spatial_dims=dims, in_channels=1, num_classes=3, widths=(4, 6, 8), **options
    )


def gradients(model: nn.Module, image: torch.Tensor, *, is_half: bool) -> dict[str, torch.Tensor]:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
        heads = model(image)
    heads = heads if isinstance(heads, list) else [heads]
    torch.stack([(head.float() ** 2).mean() for head in heads]).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize(
    ("dims", "options"),
    [
        (2, {}),
        (3, {"deep_supervision": True}),
        (3, {"residual_blocks": (1, 2, 2), "upsample": "linear"}),
    ],
)
@pytest.mark.parametrize("is_half", [False, True])
def test_gradients_are_those_of_maps_that_are_kept(
    name: str, dims: int, options: dict[str, Any], is_half: bool
) -> None:
    image = torch.randn(2, 1, *[16] * dims)
    kept, again = (network(name, dims, recompute=flag, **options) for flag in (False, True))
    assert kept.state_dict().keys() == again.state_dict().keys()
    expected = gradients(kept.train(), image, is_half=is_half)
    found = gradients(again.train(), image, is_half=is_half)
    assert found.keys() == expected.keys()
    for weight, gradient in expected.items():
        assert torch.equal(found[weight], gradient), weight
    with torch.no_grad():
        assert torch.equal(kept.eval()(image), again.eval()(image))


@pytest.mark.parametrize("name", DENSE)
def test_each_node_runs_once_more_in_training_alone(name: str) -> None:
    model, calls = network(name, 2, recompute=True), []
    inner = model.nodes["0_2"] if name == "unetpp" else model.decoder[0].fuse
    inner.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(model.train(), torch.randn(2, 1, 16, 16), is_half=False)
    assert len(calls) == 2
    model.eval()(torch.randn(2, 1, 16, 16))
    assert len(calls) == 3


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("is_half", [False, True])
def test_less_memory_is_foreseen(name: str, is_half: bool) -> None:
    def foreseen(**more: Any) -> int:
        options = {"widths": [32, 64, 128, 256], "deep_supervision": True, **more}
        trained = TrainedNetwork(name, options, "dice_ce", 1, 3, (64, 64, 64))
        return step_bytes(trained, batch_size=2, device="cuda", is_half=is_half)

    assert foreseen(recompute=True) < 0.8 * foreseen()


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("options", [{"norm": "batch"}, {"dropout": 0.5}])
def test_what_differs_the_second_time_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="batch norm and dropout would differ"):
        network(name, 2, recompute=True, **options)
