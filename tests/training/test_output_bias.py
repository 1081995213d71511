"""Outputs that start at the shares of the classes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from segmed.encoding import LabelEncoding
from segmed.manifest import Manifest
from segmed.models import build_model, list_models
from segmed.plan import Plan
from segmed.plan.networks import plan_networks
from segmed.plan.topology import plan_topology
from segmed.structures import LabelClass
from segmed.training.data import load_cases
from segmed.training.device import choose_device
from segmed.training.distributed import ProcessGroup
from segmed.training.output_bias import biases_of, output_biases, start_outputs
from segmed.training.sampling import draw_patches, step_generator
from segmed.training.trainer import Trainer

PATCH = (32, 32, 32)
PLAIN = LabelEncoding((LabelClass(name="a", value=4), LabelClass(name="b", value=9)))
NESTED = LabelEncoding(
    (LabelClass(name="whole", value=1, region=(1, 2)), LabelClass(name="core", value=2))
)


def test_softmax_of_the_biases_is_the_share_of_each_class() -> None:
    biases = biases_of(torch.tensor([96.0, 1.0, 0.0]), PLAIN)
    # Each class counts as seen in one voxel more: 97, 2 and 1 of 100.
    np.testing.assert_allclose(biases.softmax(0), [0.97, 0.02, 0.01], rtol=1e-6)


def test_sigmoid_of_the_biases_is_the_share_of_each_region_with_those_within_it() -> None:
    biases = biases_of(torch.tensor([89.0, 5.0, 3.0]), NESTED)
    np.testing.assert_allclose(biases.sigmoid(), [0.10, 0.04], rtol=1e-6)


def test_class_of_no_voxel_starts_finite() -> None:
    biases = biases_of(torch.zeros(3), PLAIN)
    np.testing.assert_allclose(biases, [math.log(1 / 3)] * 3, rtol=1e-6)


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("size", ["small", "residual"])
def test_all_heads_of_an_architecture_start_at_the_biases(name: str, size: str) -> None:
    """Heads without weights give their biases, in training and in evaluation."""
    spacing_mm = (1.0, 1.0, 1.0)
    planned = plan_networks(
        plan_topology(PATCH, spacing_mm),
        patch_size=PATCH,
        spacing_mm=spacing_mm,
        size=size,  # type: ignore[arg-type]  # one of its literals
    )
    network = build_model(
        name, spatial_dims=3, in_channels=1, num_classes=3, **planned[name].options
    )
    for layer in network.output_layers:  # type: ignore[union-attr]  # every built-in one has them
        torch.nn.init.zeros_(layer.weight)
    if hasattr(network, "score_taps"):
        for tap in network.score_taps:  # type: ignore[union-attr]  # scores of finer maps
            torch.nn.init.zeros_(tap.weight)
    biases = torch.tensor([-0.1, -3.0, -5.0])
    start_outputs(network, biases)
    image = torch.randn(2, 1, *PATCH)
    for is_training in (True, False):
        found = network.train(is_training)(image)
        heads = found if isinstance(found, list) else [found]
        for head in heads:
            middle = [n // 2 for n in head.shape[2:]]  # near the border an FCN's scores fade
            probs = head[(0, slice(None), *middle)].softmax(0)
            np.testing.assert_allclose(probs.detach(), biases.softmax(0), rtol=1e-4)


def fresh(plan: Plan) -> Trainer:
    torch.manual_seed(0)
    return Trainer("unet", plan, device=choose_device("cpu"), process_group=ProcessGroup())


def test_training_and_averaged_weights_start_at_the_shares_of_real_patches(
    manifest: Manifest, plan: Plan, cache_dir: Path
) -> None:
    cases = load_cases(manifest, manifest.split(0)[0], plan, cache_dir)
    trainer, alike = fresh(plan), fresh(plan)
    trainer.start_outputs(cases, seed=3)
    (head,) = trainer.network.output_layers  # type: ignore[union-attr,operator]  # of the U-Net
    shares = head.bias.softmax(0).detach().numpy()
    draws = draw_patches(cases, plan, step_generator(8, 0), batch_size=200)
    labels = [cases[draw.case].patch(draw.centre, plan.patch_size)[1] for draw in draws]
    counted = torch.bincount(torch.stack(labels).flatten().long(), minlength=3).double()
    np.testing.assert_allclose(shares, counted / counted.sum(), rtol=0.25)
    averaged = trainer.final_state()
    assert all(
        torch.equal(averaged[name], value) for name, value in trainer.network.state_dict().items()
    )
    image, label = cases[0].patch(cases[0].points[0][0], plan.patch_size)
    batch = image[None].repeat(2, 1, 1, 1, 1), label[None].long().repeat(2, 1, 1, 1)
    assert trainer.update(*batch) < alike.update(*batch)


def test_a_plan_without_the_rule_starts_as_before(
    manifest: Manifest, plan: Plan, cache_dir: Path
) -> None:
    cases = load_cases(manifest, manifest.split(0)[0], plan, cache_dir)
    older = plan.model_copy(
        update={"recipe": plan.recipe.model_copy(update={"starts_from_shares": False})}
    )
    trainer = fresh(older)
    trainer.start_outputs(cases, seed=3)
    assert trainer.checksum() == fresh(older).checksum()


def test_equal_seeds_count_equal_patches(manifest: Manifest, plan: Plan, cache_dir: Path) -> None:
    cases = load_cases(manifest, manifest.split(0)[0], plan, cache_dir)
    first, again, other = (output_biases(cases, plan, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
