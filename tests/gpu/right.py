"""Is it right: engines, steps and draws on the GPU against float32 on the CPU."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F

from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.engine import Engine, TorchEngine
from segmed.models import build_model, list_models
from segmed.plan import Plan, plan_networks
from segmed.plan.topology import plan_topology
from segmed.plan.within_memory import RECOMPUTED
from segmed.training.conditions import require_deterministic, same_bits
from segmed.training.data import load_cases, make_batch
from segmed.training.device import Device, choose_device
from segmed.training.distributed import ProcessGroup
from segmed.training.graph_step import GraphStep
from segmed.training.stepping import EagerSteps, GraphSteps
from segmed.training.trainer import Trainer
from segmed.transforms.augmentation import apply_augmentation, draw_augmentation, source_size
from tests.gpu import limits
from tests.gpu.cases import hippocampus, quiet_cases
from tests.gpu.findings import Check

MODES = {2: "bilinear", 3: "trilinear"}


def run(check: Check) -> None:
    """All comparisons."""
    if check.device.type == "cuda":
        with check.part("bf16 convolution"):
            bf16_convolution(check)
    for dims in (2, 3):
        for name in list_models():
            with check.part(f"engine {name} {dims}D"):
                engine(check, name, dims)
    with check.part("augmentation"):
        augmentation(check)
    with check.part("20 steps"):
        steps(check)
    with check.part("captures"):
        captures(check)
    with check.part("deterministic"):
        deterministic(check)
    limits.run(check)


def bf16_convolution(check: Check) -> None:
    """cuDNN 9.8 to 9.10 computed some of these wrongly (pytorch #163539, #166122)."""
    check.note("cuDNN", torch.backends.cudnn.version())
    x = torch.randn(2, 32, 48, 48, 48, device=check.device)
    conv = torch.nn.Conv3d(32, 64, 3, padding=1).to(check.device)
    with torch.no_grad():
        expected = F.conv3d(
            x.cpu().double(), conv.weight.cpu().double(), conv.bias.cpu().double(), padding=1
        )
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found = conv(x).cpu()
    error = float((found - expected).norm() / expected.norm())
    check.note("bf16 convolution: relative error", error, 1e-2)


def engine(check: Check, name: str, dims: int) -> None:
    """Labels of an untrained network, whose probabilities lie close together: the hardest case."""
    topology = plan_topology((48,) * dims, (1.0,) * dims)
    options = plan_networks(
        topology, patch_size=(48,) * dims, spacing_mm=(1.0,) * dims, size="small"
    )
    torch.manual_seed(0)
    network = build_model(
        name, spatial_dims=dims, in_channels=1, num_classes=3, **options[name].options
    ).eval()
    exact = TorchEngine(copy.deepcopy(network), torch.device("cpu"))
    is_cuda = check.device.type == "cuda"
    fast: Engine = CudaEngine(network, check.device) if is_cuda else exact
    changed, off = [], []
    for seed in range(3):  # a graph that is not fed would answer the first window again
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(2, 1, *[6] * dims, generator=generator)
        x = F.interpolate(coarse, size=[48] * dims, mode=MODES[dims])
        ours, expected = fast(x).cpu(), exact(x)
        changed.append(float((ours.argmax(1) != expected.argmax(1)).float().mean()))
        off.append(float((ours - expected).abs().max()))
    check.note(f"engine {name} {dims}D: labels changed, untrained", max(changed), 2e-2)
    check.note(f"engine {name} {dims}D: largest difference of a probability", max(off), 2e-2)


def augmentation(check: Check) -> None:
    """The eager path's random changes on both devices."""
    _, plan = hippocampus(check)
    worst, labels = 0.0, 0.0
    for seed in range(20):
        draw = draw_augmentation(
            plan.recipe.augmentation,
            batch_size=4,
            spacing_mm=(1.0,) * 3,
            generator=np.random.default_rng(seed),
        )
        size = source_size(plan.patch_size, draw)
        image, label = torch.randn(4, 1, *size), torch.randint(0, 3, (4, *size))
        a, la = apply_augmentation(image, label, draw, plan.patch_size)
        b, lb = apply_augmentation(
            image.to(check.device), label.to(check.device), draw, plan.patch_size
        )
        worst = max(worst, float((a - b.cpu()).abs().max()))
        labels = max(labels, float((la != lb.cpu()).float().mean()))
    check.note("augmentation: largest difference of an intensity", worst, 1e-2)
    check.note("augmentation: labels changed", labels, 1e-3)


def steps(check: Check) -> None:
    """Losses of 20 steps: CPU float32, GPU float32, GPU as chosen, GPU as one graph."""
    manifest, plan = hippocampus(check)
    inside, _ = manifest.split(0)
    cases = load_cases(manifest, inside[:16], plan, check.scratch / "cache")
    quiet = plan.recipe.augmentation.model_copy(update={"p_noise": 0.0})
    recipe = plan.recipe.model_copy(update={"augmentation": quiet, "batch_size": 2})
    plan = plan.model_copy(update={"recipe": recipe})
    devices = {
        "cpu": Device(torch.device("cpu"), None, ""),
        "float32": Device(check.device, None, ""),
        "as chosen": choose_device("auto" if check.device.type == "cuda" else "cpu"),
    }
    losses = {}
    for name, device in devices.items():
        torch.manual_seed(0)
        trainer = Trainer("unet", plan, device=device, process_group=ProcessGroup())
        losses[name] = [
            float(
                trainer.step(
                    make_batch(cases, plan, seed=0, step=n, share=slice(0, 2)), step=n, progress=0.1
                )
            )
            for n in range(4 if check.is_tiny else 20)
        ]
    torch.manual_seed(0)
    trainer = Trainer("unet", plan, device=devices["as chosen"], process_group=ProcessGroup())
    graph, losses["graph"] = GraphStep(trainer, cases, seed=0), []
    for n in range(len(losses["cpu"])):
        graph.take(graph.rows(n), step=n, progress=0.1)
        losses["graph"].append(graph.read())
    for name, limit in (("float32", 0.02), ("as chosen", 0.05), ("graph", 0.05)):
        gap = abs(losses[name][-1] - losses["cpu"][-1])
        check.note(f"loss of the last of {len(losses['cpu'])} steps, {name} - CPU", gap, limit)
    gaps = np.abs(np.array(losses["graph"]) / np.array(losses["as chosen"]) - 1)
    check.note("losses, graph against eager: largest relative gap", float(gaps.max()), 0.05)


def captures(check: Check) -> None:
    """Every architecture's step is captured, and its losses follow the eager steps."""
    cases, plan = quiet_cases(check)
    device = choose_device("auto" if check.device.type == "cuda" else "cpu")
    kinds = [(name, name, plan) for name in list_models()]
    kinds += [(f"{name}, maps computed again", name, recomputed(plan, name)) for name in RECOMPUTED]
    for title, name, own in kinds:
        found = []
        for kind in (EagerSteps, GraphSteps):
            torch.manual_seed(0)
            trainer = Trainer(name, own, device=device, process_group=ProcessGroup())
            steps = (
                GraphSteps(trainer, cases, seed=0)
                if kind is GraphSteps
                else EagerSteps(trainer, cases, process_group=ProcessGroup(), seed=0)
            )
            works = steps.works(0)
            found.append([steps.take(next(works), step=n, progress=0.1) for n in range(4)])
            works.close()
            if isinstance(steps, GraphSteps):
                check.note(f"captured {title}: eager instead", int(steps.is_eager), 0)
        gap = float(np.abs(np.array(found[0]) / np.array(found[1]) - 1).max())
        check.note(f"captured {title}: largest relative gap of 4 losses", gap, 0.05)


def recomputed(plan: Plan, name: str) -> Plan:
    """The plan with maps of one architecture's decoder computed again in the backward pass."""
    network = plan.networks[name]
    changed = network.model_copy(update={"options": {**network.options, "recompute": True}})
    return plan.model_copy(update={"networks": {**plan.networks, name: changed}})


def deterministic(check: Check) -> None:
    """Two steps twice, bit by bit, or a refusal by name."""
    manifest, plan = hippocampus(check)
    inside, _ = manifest.split(0)
    cases = load_cases(manifest, inside[:4], plan, check.scratch / "cache")
    for name in list_models():
        with same_bits(True):
            sums = []
            for _ in range(2):
                torch.manual_seed(0)
                trainer = Trainer(
                    name, plan, device=Device(check.device, None, ""), process_group=ProcessGroup()
                )
                try:
                    require_deterministic(
                        trainer.network, name, is_cuda=check.device.type == "cuda"
                    )
                except ValueError as error:
                    check.note(f"deterministic {name}", str(error)[:60])
                    break
                for n in range(2):
                    batch = make_batch(cases, plan, seed=0, step=n, share=slice(0, 1))
                    trainer.step(batch, step=n, progress=0.1)
                sums.append(sum(t.double().sum().item() for t in trainer.final_state().values()))
        if len(sums) == 2:
            check.note(f"deterministic {name}: difference of two runs", abs(sums[0] - sums[1]), 0.0)
