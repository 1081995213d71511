"""Collectives of a step, scarce memory and overflow: what happens at the limits of a device."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from segmed.geometry import Grid
from segmed.inference import Predictor
from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.engine import TorchEngine
from segmed.package import ModelPackage
from segmed.training import Budget
from segmed.training.checkpoint import LAST, load_checkpoint
from segmed.training.device import choose_device
from segmed.training.distributed import ProcessGroup, joined
from segmed.training.resident import ResidentCases, VoxelStore
from segmed.training.ring import PatchRing
from segmed.training.run_files import RunFiles
from segmed.training.stepping import EagerSteps, GraphSteps, Steps
from segmed.training.trainer import Trainer
from segmed.transforms.grid_transform import Prepared, resampled, turned
from tests.gpu.cases import hippocampus, large_plan, network_of, quiet_cases
from tests.gpu.findings import Check

STEPS = 6


def run(check: Check) -> None:
    """All limits, seconds each."""
    with check.part("collectives"):
        collectives(check)
    with check.part("ring of patches"):
        ring(check)
    with check.part("checkpoint beside the training"):
        checkpoint_beside(check)
    with check.part("scarce memory"):
        scarce_memory(check)
    with check.part("forecast of memory"):
        forecast(check)
    with check.part("overflow"):
        overflow(check)


@contextlib.contextmanager
def process_group(check: Check) -> Iterator[ProcessGroup]:
    """A group of one process that runs its collectives all the same: NCCL on a GPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}
    before = dict(os.environ)
    os.environ |= place
    try:
        with joined(choose_device("auto" if check.device.type == "cuda" else "cpu")) as group:
            yield group
    finally:
        for name in place:
            os.environ.pop(name)
        os.environ |= {name: before[name] for name in place if name in before}


def collectives(check: Check) -> None:
    """Steps whose gradients go through NCCL, eager and within the graph, against steps alone."""
    cases, plan = quiet_cases(check)
    device = choose_device("auto" if check.device.type == "cuda" else "cpu")

    def losses(kind: str, group: ProcessGroup) -> list[float]:
        torch.manual_seed(0)
        trainer = Trainer("unet", plan, device=device, process_group=group)
        make: type[EagerSteps | GraphSteps] = GraphSteps if kind == "graph" else EagerSteps
        steps: Steps = make(trainer, cases, process_group=group, seed=0)
        works = steps.works(0)
        found, off = [], 0.0
        for step in range(2 if check.is_tiny else STEPS):
            if trainer.shared is not None:
                trainer.shared.say(progress=0.5, stops=False)
            found.append(steps.take(next(works), step=step, progress=0.1))
            if trainer.shared is not None:
                progress, stops = trainer.shared.heard()
                off = max(off, abs(progress - 0.5) + stops)
        check.note(f"collectives, {kind}: progress that was heard differs by", off, 1e-6)
        works.close()
        if isinstance(steps, GraphSteps):
            check.note("collectives: eager instead of captured", int(steps.is_eager), 0)
        return found

    alone = losses("eager", ProcessGroup())
    with process_group(check) as group:
        check.note("collectives: process agrees with itself", abs(group.agree(0.25) - 0.25), 0.0)
        for kind in ("eager", "graph"):
            gap = np.abs(np.array(losses(kind, group)) / np.array(alone) - 1).max()
            check.note(f"collectives, {kind}: largest relative gap of losses", float(gap), 0.05)


def ring(check: Check) -> None:
    """Cases that do not fit: losses are those of cases that stay on the device, to the bit."""
    cases, plan = quiet_cases(check)
    device = choose_device("auto" if check.device.type == "cuda" else "cpu")
    found = {}
    for kind in (ResidentCases.of, PatchRing):
        torch.manual_seed(0)
        trainer = Trainer("unet", plan, device=device, process_group=ProcessGroup())
        voxels: VoxelStore = kind(cases, plan, device.torch_device)
        steps = GraphSteps(trainer, cases, seed=0, voxels=voxels)
        works = steps.works(0)
        begun = time.perf_counter()
        count = 2 if check.is_tiny else 40
        losses = [steps.take(next(works), step=step, progress=0.1) for step in range(count)]
        losses.append(steps.flush())
        name = "ring" if kind is PatchRing else "resident"
        taken = 1e3 * (time.perf_counter() - begun) / count
        check.note(f"{name}: a step with its capture, cases on disk, ms", taken)
        check.note(f"{name}: eager instead of captured", int(steps.is_eager), 0)
        works.close()
        found[name] = losses
    gap = np.abs(np.array(found["ring"]) - np.array(found["resident"])).max()
    check.note("ring: largest difference of losses", float(gap), 1e-3)


def checkpoint_beside(check: Check) -> None:
    """A checkpoint of one moment, though the steps after it change the weights at once."""
    cases, plan = quiet_cases(check)
    device = choose_device("auto" if check.device.type == "cuda" else "cpu")
    trainer = Trainer("unet", plan, device=device, process_group=ProcessGroup())
    steps = GraphSteps(trainer, cases, seed=0)
    folder = check.scratch / "beside"
    folder.mkdir(exist_ok=True)
    files = RunFiles(folder, {}, Budget(epochs=1), 5.0, device.torch_device, in_thread=True)
    works, count = steps.works(0), 2 if check.is_tiny else 12
    for step in range(count):
        steps.take(next(works), step=step, progress=0.1)
        if step + 1 == count // 2:
            check.wait()
            expected = trainer.checksum()
            begun = time.perf_counter()
            files.save(
                trainer, step=step, elapsed_s=0.0, is_finished=False, history=[],
                tally={"loss": 0.0}, unread=steps.unread,
            )  # fmt: skip
            check.note("checkpoint: host's time, ms", 1e3 * (time.perf_counter() - begun))
    works.close()
    files.close()
    check.note("checkpoint: steps after it changed nothing", int(trainer.checksum() == expected), 0)
    saved = load_checkpoint(folder / LAST, run={})
    trainer.load_state(vars(saved))
    check.note("checkpoint: sum of its weights differs by", abs(trainer.checksum() - expected), 0.0)


def scarce_memory(check: Check) -> None:
    """A batch that does not fit is halved, with the labels of a batch that fits."""
    _, plan = hippocampus(check)
    network = network_of(plan).eval()
    shape = (plan.in_channels, *plan.patch_size)
    batch = 2 if check.is_tiny else 64
    windows = torch.randn(batch, *shape, device=check.device)
    exact = TorchEngine(network_of(plan).eval(), check.device)
    if check.device.type == "cuda":
        engine = CudaEngine(network, check.device)
        one = engine.window_bytes(shape)
        check.note("scarce memory: a window inside the network, MB", one / 1e6)
        free, total = torch.cuda.mem_get_info(check.device)
        reserved = torch.cuda.memory_reserved(check.device)
        allowed = torch.cuda.memory_allocated(check.device) + batch // 4 * one + 200 * 2**20
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), check.device)
        check.note("scarce memory: free of all, GB", (free + reserved) / 1e9)
    else:
        engine = CudaEngine(Room(network, 1), check.device, precision=torch.float32)
    try:
        found = engine(windows).argmax(1).cpu()
    finally:
        if check.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, check.device)
    check.note("scarce memory: largest batch that was taken", engine._largest_batch, batch // 2)
    expected = torch.cat([exact(part).argmax(1).cpu() for part in windows.split(2)])
    changed = float((found != expected).float().mean())
    check.note("scarce memory: labels changed, untrained", changed, 2e-2)


class Room(nn.Module):
    """A network on a device with room for so many windows at once."""

    def __init__(self, network: nn.Module, windows: int) -> None:
        super().__init__()
        self.network, self.windows = network, windows

    def forward(self, windows: Tensor) -> Tensor:
        if len(windows) > self.windows:
            raise torch.OutOfMemoryError(f"no room for {len(windows)} windows")
        found: Tensor = self.network(windows)
        return found


def forecast(check: Check) -> None:
    """Peak of a segmentation on the GPU against its forecast; mirror images within the graph."""
    _, plan = hippocampus(check)
    plan = large_plan(check, plan, classes=3)
    edge = 32 if check.is_tiny else 256
    transform = resampled(turned(Grid((edge,) * 3, np.eye(4)), "RAS"), (1.0,) * 3)
    network = network_of(plan)
    package = ModelPackage("unet", plan.networks["unet"].options, plan, network.state_dict())
    predictor = Predictor(package, device=check.device.type, engine="auto", tta=not check.is_tiny)
    if check.device.type != "cuda":
        predictor._use([CudaEngine(network, check.device, precision=torch.float32)])
    need = predictor.forecast_device(transform.grid_in)
    assert need is not None
    if check.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    predictor.segment(Prepared(torch.randn(1, *transform.shape), transform))
    check.note("forecast of GPU memory, GB", need.total / 1e9)
    if check.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() - before
        check.note("forecast: peak, GB", peak / 1e9)
        check.note("forecast: peak as a share of the forecast", peak / max(1, need.total), 1.5)


def overflow(check: Check) -> None:
    """Activations beyond float16 are noticed, and the network runs in float32."""
    _, plan = hippocampus(check)
    network = network_of(plan).eval()
    windows = torch.randn(1, plan.in_channels, *plan.patch_size)
    exact = TorchEngine(network_of(plan).eval(), torch.device("cpu"))(windows)
    engine = CudaEngine(_Wide(network), check.device)
    engine(windows.to(check.device))
    check.note("overflow: not noticed", int(not engine.fall_back()), 0)
    again = engine(windows.to(check.device)).cpu()
    check.note("overflow: noticed in float32, too", int(engine.fall_back()), 0)
    changed = float((again.argmax(1) != exact.argmax(1)).float().mean())
    check.note("overflow: labels changed in float32", changed, 1e-3)


class _Wide(nn.Module):
    """A network whose activations exceed float16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> Tensor:
        logits: Tensor = self.network(windows)
        return logits * 1e7 / 1e7
