"""The body of the captured step, run on a CPU, trains as the eager step does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segmed.manifest import Manifest
from segmed.plan import Plan
from segmed.training.data import load_cases, make_batch
from segmed.training.device import choose_device
from segmed.training.distributed import ProcessGroup
from segmed.training.graph_step import GraphStep, why_no_graph
from segmed.training.sampling import TrainingCase
from segmed.training.trainer import Trainer

STEPS = 12


@pytest.fixture(scope="module")
def quiet(plan: Plan) -> Plan:
    """The plan without noise, whose values differ between the two ways by design."""
    augmentation = plan.recipe.augmentation.model_copy(update={"p_noise": 0.0})
    return plan.model_copy(
        update={"recipe": plan.recipe.model_copy(update={"augmentation": augmentation})}
    )


@pytest.fixture(scope="module")
def cases(manifest: Manifest, quiet: Plan, cache_dir: Path) -> list[TrainingCase]:
    inside, _ = manifest.split(0)
    return load_cases(manifest, inside, quiet, cache_dir)


def fresh(plan: Plan) -> Trainer:
    torch.manual_seed(0)
    name = next(iter(plan.networks))
    return Trainer(name, plan, device=choose_device("cpu"), process_group=ProcessGroup())


def test_losses_and_averaged_weights_follow_the_eager_steps(
    quiet: Plan, cases: list[TrainingCase]
) -> None:
    eager, ours = fresh(quiet), fresh(quiet)
    steps = GraphStep(ours, cases, seed=5)
    whole = slice(0, quiet.recipe.batch_size)
    for step in range(STEPS):
        batch = make_batch(cases, quiet, seed=5, step=step, share=whole)
        expected = float(eager.step(batch, step=step, progress=0.3))
        steps.take(steps.rows(step), step=step, progress=0.3)
        assert steps.read() == pytest.approx(expected, rel=1e-2)
    for name, tensor in eager.final_state().items():
        torch.testing.assert_close(ours.final_state()[name], tensor, rtol=0.05, atol=0.02)


def test_losses_add_up_until_they_are_read(quiet: Plan, cases: list[TrainingCase]) -> None:
    one, many = GraphStep(fresh(quiet), cases, seed=1), GraphStep(fresh(quiet), cases, seed=1)
    total = 0.0
    for step in range(4):
        one.take(one.rows(step), step=step, progress=0.3)
        total += one.read()
        many.take(many.rows(step), step=step, progress=0.3)
    assert many.read() == pytest.approx(total, rel=1e-5)
    assert many.read() == 0.0


def test_what_a_warm_up_changes_is_undone(quiet: Plan, cases: list[TrainingCase]) -> None:
    trainer = fresh(quiet)
    steps = GraphStep(trainer, cases, seed=1)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    with trainer.undone():
        steps.take(steps.rows(0), step=0, progress=0.3)
        changed = trainer.network.state_dict()
        assert any(not torch.equal(changed[name], tensor) for name, tensor in before.items())
    for name, tensor in trainer.network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    moments = [s["exp_avg"] for s in trainer.optimizer.state.values()]
    assert moments
    assert all(not moment.any() for moment in moments)


def test_a_cpu_takes_eager_steps_and_says_why(quiet: Plan) -> None:
    trainer = fresh(quiet)
    assert why_no_graph(trainer, trainer.device) == "the device is a CPU"


def test_a_checkpoint_moves_between_optimisers_of_two_devices(
    quiet: Plan, cases: list[TrainingCase]
) -> None:
    trainer, other = fresh(quiet), fresh(quiet)
    batch = make_batch(cases, quiet, seed=0, step=0, share=slice(0, quiet.recipe.batch_size))
    trainer.step(batch, step=0, progress=0.3)
    state = trainer.state()
    for group in state["optimizer"]["param_groups"]:
        group.update(fused=True, capturable=True, lr=torch.tensor(0.1))  # as a GPU leaves it
    other.load_state(state)
    assert float(other.step(batch, step=1, progress=0.3)) > 0
    assert not any(group["capturable"] for group in other.optimizer.param_groups)
