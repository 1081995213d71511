"""A network that refines a label map starts there, for classes and regions, at every level."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segmed.models import build_model
from segmed.models.refining import RefiningNetwork

SIZE = (16, 16, 16)


class Silent(nn.Module):
    """Logits of 0; in training at three sizes, as deep supervision gives them."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        sizes = [[n // step for n in image.shape[2:]] for step in (1, 2, 4)]
        found = [torch.zeros(len(image), self.maps, *size) for size in sizes]
        return found if self.training else found[0]


def label_map(num_labels: int) -> torch.Tensor:
    """An image of one channel and a label map of cubes beside each other, `[1, 1 + L, *SIZE]`."""
    image = torch.randn(1, 1 + num_labels, *SIZE)
    image[:, 1:] = 0
    for label in range(num_labels):
        image[:, 1 + label, 4 * label : 4 * label + 4, 4:8] = 1
    return image


@pytest.mark.parametrize("num_labels", [1, 3])
def test_classes_start_at_the_label_map(num_labels: int) -> None:
    image = label_map(num_labels)
    with torch.no_grad():
        logits = RefiningNetwork(Silent(1 + num_labels), num_labels).eval()(image)
    expected = torch.cat([1 - image[:, 1:].sum(1, keepdim=True), image[:, 1:]], dim=1).argmax(1)
    assert torch.equal(logits.argmax(1), expected)
    assert logits.softmax(1).amax(1).min().item() > 0.8


def test_regions_start_each_at_its_own_map() -> None:
    image = label_map(2)
    image[:, 2] = image[:, 1] * image[:, 2].roll(4, dims=1)  # the second lies within the first
    logits = RefiningNetwork(Silent(2), 2, has_regions=True).eval()(image)
    assert torch.equal(logits.sigmoid() > 0.9, image[:, 1:] > 0.5)
    assert torch.equal(logits.sigmoid() < 0.1, image[:, 1:] < 0.5)


def test_each_level_of_deep_supervision_starts_there() -> None:
    image = label_map(1)
    maps = RefiningNetwork(Silent(2), 1).train()(image)
    assert [tuple(one.shape[2:]) for one in maps] == [(16,) * 3, (8,) * 3, (4,) * 3]
    for step, one in zip((1, 2, 4), maps, strict=True):
        assert torch.equal(one.argmax(1), image[:, 1, ::step, ::step, ::step].long())


@pytest.mark.parametrize("name", ["unet", "unetpp", "unet3plus", "fcn8s", "deeplabv3plus"])
def test_belief_and_network_learn_together(name: str) -> None:
    torch.manual_seed(0)
    narrow = {"aspp_width": 8} if name == "deeplabv3plus" else {}
    inner = build_model(
        name, spatial_dims=3, in_channels=2, num_classes=2, widths=(4, 6, 8), **narrow
    )
    network = RefiningNetwork(inner, 1).train()
    maps = network(label_map(1))
    finest = maps if isinstance(maps, torch.Tensor) else maps[0]
    finest.square().mean().backward()
    assert network.belief.grad is not None
    assert float(network.belief.grad.abs()) > 0
    assert network.output_layers == tuple(getattr(inner, "output_layers", ()))
    assert float(next(inner.parameters()).grad.abs().sum()) > 0
