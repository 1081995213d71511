"""Window bookkeeping: everything but the network, on a stub, beside the peers."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from segmed.inference import sliding_window

CPU = torch.device("cpu")

Record = dict[str, Any]


class Stub:
    """A network that only copies a stored map; it notes the time it takes."""

    def __init__(self, num_classes: int, window: Sequence[int]) -> None:
        self.map = torch.rand(1, num_classes, *window)
        self.wall = self.cpu = 0.0

    def __call__(self, windows: Tensor) -> Tensor:
        """A fresh copy of the map, as a network would give."""
        wall, cpu = time.perf_counter(), time.process_time()
        maps = self.map.expand(len(windows), *self.map.shape[1:]).clone()
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return maps


def bookkeeping_s(run: Callable[[Stub], object], num_classes: int, rounds: int) -> Record:
    """Least CPU and wall time of several rounds, the stub's own time taken off."""
    seconds = []
    for _ in range(rounds):
        stub = Stub(num_classes, (96, 96, 96))
        wall, cpu = time.perf_counter(), time.process_time()
        run(stub)
        cpu = time.process_time() - cpu - stub.cpu
        seconds.append((cpu, time.perf_counter() - wall - stub.wall))
    return {"cpu_s": min(one for one, _ in seconds), "wall_s": min(one for _, one in seconds)}


def blend() -> Record:
    """All but the network: 160^3 voxels, windows of 96^3, 3 and 50 classes; bar 0.4 of MONAI."""
    from monai.inferers import sliding_window_inference  # noqa: PLC0415 - a peer

    volume, window = torch.zeros(1, 160, 160, 160), (96, 96, 96)
    found: Record = {}
    for classes, rounds in ((3, 5), (50, 2)):
        ours = bookkeeping_s(
            lambda stub: sliding_window(stub, volume, window=window), classes, rounds
        )
        monai = bookkeeping_s(
            lambda stub: sliding_window_inference(
                volume[None], window, 1, stub, overlap=0.5, mode="gaussian"
            ),
            classes,
            rounds,
        )
        found[f"{classes}_classes"] = {
            "segmed": ours,
            "monai": monai,
            "cpu_ratio": ours["cpu_s"] / monai["cpu_s"],
            "one_addcmul_a_window": floor_s(window, classes, rounds),
        }
        found[f"{classes}_classes"] |= against_nnunet(volume, window, classes, rounds, ours)
    return found


def floor_s(window: tuple[int, ...], classes: int, rounds: int) -> Record:
    """Lower bound of any loop that adds weighted maps into a sum: one such pass a window."""
    total = torch.zeros(classes, 160, 160, 160)
    weight = torch.rand(window)
    place = total[:, : window[0], : window[1], : window[2]]

    def run(stub: Stub) -> None:
        for _ in range(27):
            place.addcmul_(stub(torch.empty(1))[0], weight)

    return bookkeeping_s(run, classes, rounds)


def against_nnunet(
    volume: Tensor, window: tuple[int, ...], classes: int, rounds: int, ours: Record
) -> Record:
    """The same stub through nnU-Net's predictor, where it is installed."""
    if importlib.util.find_spec("nnunetv2") is None:
        return {"nnunet": "not installed in this environment, not measured"}
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - a peer
    from nnunetv2.utilities.label_handling.label_handling import LabelManager  # noqa: PLC0415 - a peer
    from nnunetv2.utilities.plans_handling.plans_handler import (  # noqa: PLC0415 - a peer
        ConfigurationManager,
    )

    predictor = nnUNetPredictor(use_mirroring=False, device=CPU, allow_tqdm=False)
    predictor.configuration_manager = ConfigurationManager(
        {"patch_size": list(window), "architecture": {}}
    )
    names = {"background": 0, **{f"s{value}": value for value in range(1, classes)}}
    predictor.label_manager = LabelManager(names, None)

    def run(stub: Stub) -> None:
        predictor.network = _AsModule(stub)
        predictor.predict_sliding_window_return_logits(volume)

    nnunet = bookkeeping_s(run, classes, rounds)
    return {"nnunet": nnunet, "cpu_ratio_nnunet": ours["cpu_s"] / nnunet["cpu_s"]}


class _AsModule(torch.nn.Module):
    """A stub as nnU-Net wants its networks."""

    def __init__(self, stub: Stub) -> None:
        super().__init__()
        self.stub = stub

    def forward(self, windows: Tensor) -> Tensor:
        """The stub's map."""
        return self.stub(windows)
