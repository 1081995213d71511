"""Image sets and plans of the check."""

from __future__ import annotations

from typing import Any

import torch

from segmed.manifest import Manifest, build_manifest
from segmed.models import build_model
from segmed.plan import Plan, plan_networks
from segmed.plan.make import make_plan
from segmed.plan.topology import plan_topology
from segmed.structures import LabelClass
from segmed.training.data import load_cases
from segmed.training.sampling import TrainingCase
from tests.gpu.findings import Check


def hippocampus(check: Check) -> tuple[Manifest, Plan]:
    """The set and its plan."""
    manifest = build_manifest(check.data)
    return manifest, planned(check, manifest)


def planned(check: Check, manifest: Manifest) -> Plan:
    """The plan of a set for a GPU of 8 GB."""
    return make_plan(manifest, size="small" if check.is_tiny else "full", memory_gb=8)


def large_plan(check: Check, plan: Plan, *, classes: int = 3) -> Plan:
    """The plan with patches of 128 cubed, two a batch, and a full-width network."""
    patch = (32, 32, 32) if check.is_tiny else (128, 128, 128)
    networks = plan_networks(
        plan_topology(patch, (1.0, 1.0, 1.0)),
        patch_size=patch,
        spacing_mm=(1.0,) * 3,
        size="small" if check.is_tiny else "full",
    )
    labels = tuple(LabelClass(name=f"s{n}", value=n) for n in range(1, classes))
    recipe = plan.recipe.model_copy(update={"batch_size": 2})
    changes: dict[str, Any] = {
        "patch_size": patch, "networks": networks, "labels": labels, "recipe": recipe,
    }  # fmt: skip
    return plan.model_copy(update=changes)


def quiet_cases(check: Check) -> tuple[list[TrainingCase], Plan]:
    """Four prepared cases and a plan of small batches without noise, for steps to compare."""
    manifest, plan = hippocampus(check)
    inside, _ = manifest.split(0)
    cases = load_cases(manifest, inside[:4], plan, check.scratch / "cache")
    quiet = plan.recipe.augmentation.model_copy(update={"p_noise": 0.0})
    recipe = plan.recipe.model_copy(update={"augmentation": quiet, "batch_size": 2})
    return cases, plan.model_copy(update={"recipe": recipe})


def network_of(plan: Plan, name: str = "unet") -> torch.nn.Module:
    """A network of the plan with reproducible weights."""
    torch.manual_seed(0)
    return build_model(
        name,
        spatial_dims=plan.spatial_dims,
        in_channels=plan.in_channels,
        num_classes=plan.num_classes,
        **plan.networks[name].options,
    )
