"""Plans of residual networks, and networks that become narrower where memory is short."""

from __future__ import annotations

from functools import cache

import pytest
from published_facts import published_facts

from segmed.models import build_model
from segmed.plan import Plan
from segmed.plan.make import decide_plan
from segmed.plan.networks import Size, plan_networks, size_of
from segmed.plan.topology import plan_topology

FAMILY = ("unet", "unetpp", "unet3plus")
PATCH = (128, 128, 128)


def networks(size: Size) -> dict[str, dict[str, object]]:
    spacing_mm = (1.0, 1.0, 1.0)
    topology = plan_topology(PATCH, spacing_mm)
    planned = plan_networks(topology, patch_size=PATCH, spacing_mm=spacing_mm, size=size)
    return {name: network.options for name, network in planned.items()}


@cache
def planned(size: Size, memory_gb: float) -> Plan:
    _, manifest, facts = published_facts("lits")
    return decide_plan(manifest, facts, size=size, memory_gb=memory_gb)


def test_residual_plans_have_the_blocks_of_nnunet_in_the_unet_family_alone() -> None:
    residual = networks("residual")
    for name, options in residual.items():
        assert options.get("residual_blocks") == ([1, 3, 4, 6, 6, 6] if name in FAMILY else None)
        assert options["widths"][:2] == [32, 64]
    assert residual["unet"]["decoder_convs"] == residual["unetpp"]["decoder_convs"] == 1


def test_residual_plans_supervise_all_seven_networks_deeply() -> None:
    assert all(options["deep_supervision"] for options in networks("residual").values())


@pytest.mark.parametrize("size", ["small", "full"])
def test_other_sizes_are_as_they_were(size: Size) -> None:
    for name, options in networks(size).items():
        assert "residual_blocks" not in options
        assert "decoder_convs" not in options
        assert options.get("deep_supervision", False) == (name in ("unetpp", "unet3plus"))


def test_every_planned_residual_network_is_built() -> None:
    for name, options in planned("residual", 11.0).networks.items():
        network = build_model(name, spatial_dims=3, in_channels=1, num_classes=3, **{
            **options.options, "widths": [4] * len(options.options["widths"]),
        })  # fmt: skip
        assert sum(parameter.numel() for parameter in network.parameters()) > 0


@pytest.mark.parametrize("size", ["small", "full", "residual"])
def test_size_of_a_plan_is_found_though_some_networks_are_narrower(size: Size) -> None:
    assert size_of(planned(size, 11.0).networks) == size


def test_networks_that_need_more_memory_become_narrower_and_say_so() -> None:
    plan = planned("full", 11.0)
    assert plan.networks["unet"].options["widths"][0] == 32
    assert 16 <= plan.networks["unetpp"].options["widths"][0] < 32
    assert plan.networks["unetpp"].options["recompute"]
    assert plan.networks["unetpp"].options["deep_supervision"]
    why = plan.reasons["networks.unetpp"]
    assert "maps of the decoder are computed again in the backward pass" in why
    assert "features at the finest level instead of 32" in why
    assert "of 11 GB" in why
    assert "networks.unet" not in plan.reasons
