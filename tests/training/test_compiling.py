"""A network is compiled where that pays, before the first step, and never in mid-training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow_training import start
from tiny_data import tiny_plan
from torch import Tensor

from segmed.manifest import Manifest
from segmed.models import build_model
from segmed.plan import Plan
from segmed.training import Budget
from segmed.training.compiling import (
    CompilationChoice,
    choose_compilation,
    seconds_left,
    settle_compilation,
)
from segmed.training.conditions import same_bits
from segmed.training.device import Device, choose_device
from segmed.training.distributed import ProcessGroup
from segmed.training.trainer import Trainer

GPU = Device(torch.device("cuda", 0), torch.bfloat16, "a GPU, which nothing here runs on")
UNET: dict[str, Any] = {"widths": [32, 64, 128, 256, 320, 320]}
LARGE, HIPPOCAMPUS = ((128, 128, 128), 2), ((40, 56, 40), 7)


class Counting:
    """A compiler that runs what it is given, and counts."""

    def __init__(self) -> None:
        self.compiled = self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        self.compiled += 1

        def run(*values: Any) -> Any:
            self.calls += 1
            return graph.forward(*values)

        return run


def failing(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
    """A compiler without its tools."""
    raise OSError("no C compiler was found")


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch._dynamo.reset()


def with_steps_of(plan: Plan, patch: tuple[int, ...], batch: int) -> Plan:
    recipe = plan.recipe.model_copy(update={"batch_size": batch, "iterations_per_epoch": 250})
    return plan.model_copy(update={"patch_size": patch, "recipe": recipe})


def choice(
    plan: Plan,
    kind: tuple[tuple[int, ...], int],
    budget: Budget,
    *,
    wish: bool | None = None,
    device: Device = GPU,
) -> CompilationChoice:
    plan = with_steps_of(plan, *kind)
    with torch.device("meta"):
        network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **UNET)
    left_s = seconds_left(budget, plan, UNET, progress=0.0, step=0)
    return choose_compilation(wish, network, plan, device=device, left_s=left_s)


@pytest.mark.parametrize(
    ("kind", "budget", "is_on"),
    [
        (LARGE, Budget(seconds=3600), True),
        (LARGE, Budget(seconds=120), False),
        (LARGE, Budget(epochs=100), True),
        (LARGE, Budget(epochs=2), False),
        (HIPPOCAMPUS, Budget(seconds=300), False),
        (HIPPOCAMPUS, Budget(seconds=3 * 3600), True),
        (HIPPOCAMPUS, Budget(epochs=10), False),
        (((24, 24, 24), 2), Budget(seconds=24 * 3600), False),
    ],
)
def test_large_steps_of_long_trainings_are_compiled(
    plan: Plan, kind: tuple[tuple[int, ...], int], budget: Budget, is_on: bool
) -> None:
    found = choice(plan, kind, budget)
    assert found.is_on == is_on
    assert "compiling takes about" in found.why or "too small" in found.why


def test_wishes_devices_and_determinism_decide_first(plan: Plan) -> None:
    hour = Budget(seconds=3600)
    assert choice(plan, LARGE, hour, wish=False) == CompilationChoice(False, "as requested")
    assert choice(plan, HIPPOCAMPUS, Budget(seconds=9), wish=True) == CompilationChoice(
        True, "as requested"
    )
    assert not choice(plan, LARGE, hour, device=choose_device("cpu")).is_on
    with same_bits(True):
        assert choice(plan, LARGE, hour) == CompilationChoice(False, "--deterministic")


def test_an_architecture_of_more_convolutions_needs_a_longer_training(plan: Plan) -> None:
    with torch.device("meta"):
        network = build_model("unetpp", spatial_dims=3, in_channels=1, num_classes=3, **UNET)
    large = with_steps_of(plan, *LARGE)
    assert not choose_compilation(None, network, large, device=GPU, left_s=700.0).is_on
    assert choice(plan, LARGE, Budget(seconds=700)).is_on


def test_what_is_left_of_a_budget_shrinks_with_its_progress(plan: Plan) -> None:
    large = with_steps_of(plan, *LARGE)
    assert seconds_left(Budget(seconds=100), large, UNET, progress=0.75, step=9) == 25.0
    epochs = Budget(epochs=100)
    whole = seconds_left(epochs, large, UNET, progress=0.0, step=0)
    assert whole == pytest.approx(25_000 * 0.0717, rel=0.05)  # measured
    assert seconds_left(epochs, large, UNET, progress=0.9, step=22_500) == pytest.approx(whole / 10)


def fresh() -> Trainer:
    torch.manual_seed(0)
    device = choose_device("cpu")
    return Trainer("unet", tiny_plan(steps=4), device=device, process_group=ProcessGroup())


def batches(trainer: Trainer, number: int) -> list[tuple[Tensor, Tensor]]:
    plan, generator = trainer.plan, torch.Generator().manual_seed(1)
    shape = (plan.recipe.batch_size, plan.in_channels, *plan.patch_size)
    return [
        (
            trainer.in_memory_format(torch.randn(shape, generator=generator)),
            torch.randint(0, plan.num_classes, (shape[0], *shape[2:]), generator=generator),
        )
        for _ in range(number)
    ]


def test_it_is_compiled_once_and_changes_neither_weights_nor_losses() -> None:
    plain, ours, compiler = fresh(), fresh(), Counting()
    before = {name: tensor.clone() for name, tensor in ours.network.state_dict().items()}
    settle_compilation(
        ours, True, Budget(epochs=1), progress=0.0, step=0, process_group=ProcessGroup(),
        backend=compiler,
    )  # fmt: skip
    compiled = compiler.compiled
    assert compiled > 0
    for name, tensor in ours.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(parameter.grad is not None for parameter in ours.network.parameters())
    compiler.calls = 0
    for image, label in batches(ours, 3):
        torch.testing.assert_close(
            ours.update(image, label), plain.update(image, label), rtol=1e-5, atol=1e-6
        )
    assert compiler.calls >= 3
    assert compiler.compiled == compiled


def test_nothing_is_compiled_in_mid_training() -> None:
    trainer, compiler = fresh(), Counting()
    assert trainer.compile(backend=compiler) == ""
    compiled, compiler.calls = compiler.compiled, 0
    ((image, label),) = batches(trainer, 1)
    loss = trainer.update(image[:1], label[:1])  # a batch that it was not compiled for
    assert torch.isfinite(loss)
    assert (compiler.compiled, compiler.calls) == (compiled, 0)


def test_a_compiler_that_fails_leaves_an_uncompiled_training_and_a_note(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer, plain = fresh(), fresh()
    with caplog.at_level(logging.INFO, logger="segmed"):
        settle_compilation(
            trainer, True, Budget(epochs=1), progress=0.0, step=0, process_group=ProcessGroup(),
            backend=failing,
        )  # fmt: skip
    assert "torch.compile is used: as requested" in caplog.text
    assert "cannot be compiled" in caplog.text
    assert "no C compiler was found" in caplog.text
    ((image, label),) = batches(trainer, 1)
    assert torch.equal(trainer.update(image, label), plain.update(image, label))


def test_a_training_on_a_cpu_compiles_nothing_and_says_nothing(
    manifest: Manifest,
    plan: Plan,
    cache_dir: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="segmed"):
        list(start(manifest, plan, tmp_path, cache_dir, budget=Budget(epochs=1)))
    assert "torch.compile" not in caplog.text
