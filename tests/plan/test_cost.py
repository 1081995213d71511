"""The work that a plan foresees is that of the network that is built."""

from __future__ import annotations

from math import prod

import pytest
import torch
from real_facts import real_facts
from torch import nn

from segmed.models import build_model
from segmed.plan.cost import unet_macs
from segmed.plan.make import decide_plan
from segmed.plan.networks import Size, plan_networks
from segmed.plan.resources import Resources
from segmed.plan.topology import Topology


def counted_macs(network: nn.Module, image: torch.Tensor) -> float:
    """Multiply-accumulates of all convolutions, from the shapes of a pass without values."""
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        transposed = isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
        voxels = inputs[0].numel() if transposed else output.numel()
        total += voxels * weight.shape[1] * prod(weight.shape[2:])

    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(count)
    network.eval()(image)
    return float(total)


@pytest.mark.parametrize("name", ["left_atrium", "cardiac_mr", "brain_many_labels", "chase_db1"])
@pytest.mark.parametrize("size", ["small", "residual"])
def test_foreseen_work_is_that_of_the_convolutions(name: str, size: Size) -> None:
    manifest, facts = real_facts(name)
    plan = decide_plan(manifest, facts)
    steps = tuple(map(tuple, plan.networks["unet"].options["strides"]))
    kernels = tuple(map(tuple, plan.networks["unet"].options["kernels"]))
    networks = plan_networks(
        Topology(kernels, steps),
        patch_size=plan.patch_size,
        spacing_mm=(1.0,) * len(plan.patch_size),
        size=size,
    )
    plan = plan.model_copy(update={"networks": networks})
    options = plan.networks["unet"].options
    topology = Topology(
        tuple(map(tuple, options["kernels"])), tuple(map(tuple, options["strides"]))
    )
    foreseen = unet_macs(
        plan.patch_size,
        topology,
        options["widths"],
        in_channels=plan.in_channels,
        num_classes=plan.num_classes,
        residual_blocks=options.get("residual_blocks"),
    )
    with torch.device("meta"):
        network = build_model(
            "unet",
            spatial_dims=plan.spatial_dims,
            in_channels=plan.in_channels,
            num_classes=plan.num_classes,
            **options,
        )
        image = torch.empty(1, plan.in_channels, *plan.patch_size)
    assert foreseen == pytest.approx(counted_macs(network, image), rel=1e-3)


def test_a_second_core_and_a_gpu_do_more_in_the_same_time() -> None:
    one = Resources(100.0)
    assert Resources(100.0, cores=2).gmac > 1.5 * one.gmac
    assert Resources(100.0, device="cuda").gmac > 20 * one.gmac
    assert Resources(100.0, clock="cpu", cores=8).gmac == Resources(100.0, clock="cpu").gmac
