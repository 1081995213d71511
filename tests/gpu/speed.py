"""Is it fast: whole training steps beside the bare passes, windows and losses."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from segmed.inference.cuda_engine import CudaEngine
from segmed.losses import make_loss
from segmed.plan import Plan
from segmed.training.conditions import fastest_convolutions
from segmed.training.device import choose_device
from segmed.training.distributed import ProcessGroup
from segmed.training.sampling import TrainingCase
from segmed.training.stepping import EagerSteps, GraphSteps, Steps
from segmed.training.trainer import Trainer
from tests.gpu.cases import hippocampus, large_plan, network_of
from tests.gpu.findings import Check

ROUND = 40
"""Steps timed at once, so that the few dozen between two readings of the loss are among them."""


def run(check: Check, *, compiles: bool) -> None:
    """Two sizes: the small one is bound by launches, the large one by arithmetic and memory."""
    _, plan = hippocampus(check)
    large = large_plan(check, plan)
    device = choose_device("auto" if check.device.type == "cuda" else "cpu")
    for title, its, size in (("hippocampus", plan, (48, 64, 48)), ("128^3", large, (160,) * 3)):
        edge = (40,) * 3 if check.is_tiny else size
        with check.part(f"{title}: windows"):
            windows(check, title, its)
        with check.part(f"{title}: steps"), fastest_convolutions(device):
            steps(check, title, its, synthetic_cases(edge), compiled=False)
        if compiles and not check.is_tiny and title == "128^3":
            with check.part(f"{title}: compiled steps"), fastest_convolutions(device):
                steps(check, f"{title}, compiled", its, synthetic_cases(edge), compiled=True)
    with check.part("losses"):
        losses(check)


def synthetic_cases(size: tuple[int, ...]) -> list[TrainingCase]:
    """Noise: speed does not depend on the values."""
    rng = np.random.default_rng(0)
    return [
        TrainingCase.of(
            str(n), torch.randn(1, *size), torch.from_numpy(rng.integers(0, 3, size, np.uint8))
        )
        for n in range(8)
    ]


def steps(
    check: Check, title: str, plan: Plan, cases: list[TrainingCase], *, compiled: bool
) -> None:
    """A step of each kind, and forward and backward pass alone in the same arithmetic."""
    device = choose_device("auto" if check.device.type == "cuda" else "cpu")

    def fresh() -> Trainer:
        torch.manual_seed(0)
        made = Trainer("unet", plan, device=device, process_group=ProcessGroup())
        if compiled:
            begun = time.perf_counter()
            if fault := made.compile():
                raise RuntimeError(fault)
            check.note(f"{title}: compiling, s", time.perf_counter() - begun)
        return made

    trainer = fresh()
    shape = (plan.recipe.batch_size, plan.in_channels, *plan.patch_size)
    image = trainer.in_memory_format(torch.randn(shape, device=check.device))
    network = trainer.forward

    def bare() -> None:
        trainer.network.zero_grad(set_to_none=True)
        with torch.autocast(check.device.type, dtype=device.autocast_dtype, enabled=device.is_cuda):
            out = network(image)
        heads = out if isinstance(out, list | tuple) else [out]
        torch.stack([head.float().mean() for head in heads]).sum().backward()

    bare_ms = check.milliseconds(bare)
    check.note(f"{title}: bare forward and backward, ms", bare_ms)
    kinds: dict[str, Callable[[], Steps]] = {
        "eager": lambda: EagerSteps(fresh(), cases, process_group=ProcessGroup(), seed=0),
        "graph": lambda: GraphSteps(fresh(), cases, seed=0),
    }
    for kind, make in kinds.items():
        step_ms = _step_ms(check, make())
        check.note(f"{title}: whole step, {kind}, ms", step_ms)
        check.note(f"{title}: share of the bare passes' rate, {kind}", bare_ms / step_ms)
    if check.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
        check.note(f"{title}: peak GPU memory, GB", peak)


def _step_ms(check: Check, taker: Steps) -> float:
    works, number = taker.works(0), iter(range(10**6))
    count = 2 if check.is_tiny else ROUND

    def several() -> None:
        for _ in range(count):
            taker.take(next(works), step=next(number), progress=0.3)
        taker.flush()
        taker.phases()

    found = check.milliseconds(several, times=2, warm=1) / count
    works.close()
    return found


def windows(check: Check, title: str, plan: Plan) -> None:
    """One window and one full batch through networks in several layouts and types."""
    network = network_of(plan).eval()
    shape = (1, plan.in_channels, *plan.patch_size)
    if check.device.type != "cuda":
        return
    forms = {
        "float16, contiguous": (torch.float16, torch.contiguous_format),
        "float16, features last": (torch.float16, torch.channels_last_3d),
        "float32, contiguous": (torch.float32, torch.contiguous_format),
    }
    for name, (dtype, form) in forms.items():
        changed = copy.deepcopy(network).to(check.device, dtype)
        changed.to(memory_format=form)
        x = torch.randn(shape, device=check.device, dtype=dtype).contiguous(memory_format=form)
        with torch.inference_mode():
            taken = check.milliseconds(partial(changed, x))
            check.note(f"{title}: one window, eager {name}, ms", taken)
    engine = CudaEngine(network, check.device)
    for count in (1, 2, 4):
        x = torch.randn(count, *shape[1:], device=check.device)
        once = check.milliseconds(partial(engine, x)) / count
        check.note(f"{title}: a window, engine, batch of {count}, ms", once)


def losses(check: Check) -> None:
    """Forward and backward of the loss: linear in the number of classes."""
    edge = 32 if check.is_tiny else 128
    for classes in (3, 21, 105):
        count = 1 if classes > 21 else 2
        logits = torch.randn(count, classes, *[edge] * 3, device=check.device, requires_grad=True)
        target: Tensor = torch.randint(0, classes, (count, *[edge] * 3), device=check.device)
        loss = make_loss("dice_ce", num_classes=classes)
        backward = partial(_backward, loss, logits, target)
        taken = check.milliseconds(backward, 5, 2) / count
        check.note(f"loss of {classes} classes, {edge}^3, ms a patch", taken)
        del logits, target, backward


def _backward(loss: torch.nn.Module, logits: Tensor, target: Tensor) -> None:
    loss(logits, target).backward()
