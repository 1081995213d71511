"""Choice of the engine that runs a network, by name or by measurement.

The rule of `auto`: a GPU, where there is one. On a CPU eager PyTorch starts at once, while OpenVINO
is about twice as fast but first converts for half a minute. So eager runs until it has cost as much
as a conversion; then, between two images, the network is converted, both engines are timed on a
real window, and OpenVINO goes on if it is faster and no more than 1e-4 of the labels differ. At
worst a job takes twice as long as with foresight. A conversion found in the cache is tried at once.

The rule of `steady`, for archives, whose runs must give equal outputs however often they are cut
off: nothing is timed. A GPU, where there is one; OpenVINO, where it is installed and can run the
network; else eager PyTorch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from segmed.errors import ModelError, UsageError, unknown_name
from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.engine import Engine, TorchEngine
from segmed.inference.openvino_engine import Conversion, OpenVinoEngine
from segmed.inference.silent_openvino import has_openvino
from segmed.inference.vocabulary import ENGINES, EngineName
from segmed.package import ModelPackage

logger = logging.getLogger(__name__)

CONVERSION_SECONDS = 30.0
"""About what converting a network costs; eager PyTorch may spend as much before it is replaced."""

MAX_LABELS_CHANGED = 1e-4
"""Share of labels in which an engine may differ from eager float32."""


@dataclass(frozen=True)
class EngineRequest:
    """Request for an engine.

    Attributes:
        name: One of `ENGINES`.
        device: Where it shall run.
        window_batch: Shape of a full batch of windows, `[B, C, *window]`.
        cache_dir: Folder of converted models; None keeps nothing.
    """

    name: EngineName
    device: torch.device
    window_batch: tuple[int, ...]
    cache_dir: Path | None = None


def make_engine(package: ModelPackage, request: EngineRequest) -> Engine:
    """The engine for one package.

    Raises:
        UsageError: The name is unknown, not installed, or does not go with the device.
    """
    if request.name not in ENGINES:
        raise unknown_name("engine", request.name, ENGINES)
    network = package.build()
    conversion = Conversion(package.hash, (1, *request.window_batch[1:]), request.cache_dir)
    if request.name == "openvino":
        if request.device.type != "cpu":
            raise UsageError("engine 'openvino' runs on the CPU: give device cpu, or engine torch")
        return OpenVinoEngine(network, conversion)
    if request.name == "compile" and request.device.type == "cuda":
        return CudaEngine(network, request.device, compiled=True)
    if request.name == "compile":
        return TorchEngine(compiled(network), request.device, name="compile")
    if request.name == "torch":
        return TorchEngine(network, request.device)
    if request.device.type == "cuda":
        return CudaEngine(network, request.device)
    if not has_openvino():
        return TorchEngine(network, request.device)
    if request.name == "auto":
        return MeasuredEngine(network, conversion)
    return _openvino_or_eager(network, conversion)


def _openvino_or_eager(network: nn.Module, conversion: Conversion) -> Engine:
    try:
        return OpenVinoEngine(network, conversion)
    except ModelError as error:
        logger.warning("engine torch: %s", error)
        return TorchEngine(network, torch.device("cpu"))


def compiled(network: nn.Module) -> nn.Module:
    """A network through `torch.compile`; it compiles at the first window, for minutes."""
    network.compile(dynamic=False)
    return network


class MeasuredEngine:
    """Eager PyTorch at first; OpenVINO once that pays, see this module's docstring.

    Args:
        network: The network, on the CPU.
        conversion: Shape and cache of the conversion.

    Attributes:
        reason: Which engine runs, and why, in a sentence.
    """

    def __init__(self, network: nn.Module, conversion: Conversion) -> None:
        self.device = torch.device("cpu")
        self.reason = "torch: eager until it has cost as much as a conversion"
        self._eager = TorchEngine(network, self.device)
        self._current: Engine = self._eager
        self._convert: Callable[[], Engine] = lambda: OpenVinoEngine(network, conversion)
        self._is_cached = conversion.is_cached
        self._is_settled = False
        self._spent = 0.0

    @property
    def name(self) -> str:
        """Name of the engine that runs now."""
        return self._current.name

    def __call__(self, windows: Tensor) -> Tensor:
        """Class probabilities `[B, K, *window]`; valid until the next call."""
        start = time.perf_counter()
        probs = self._current(windows)
        self._spent += time.perf_counter() - start
        return probs

    def settle(self, sample: Tensor) -> None:
        """Choose, if it is time; to be called between images only.

        Args:
            sample: Real windows, `[B, C, *window]`.
        """
        if self._is_settled or not (self._is_cached or self._spent >= CONVERSION_SECONDS):
            return
        self._is_settled = True
        try:
            rival = self._convert()
        except ModelError as error:
            self.reason = f"torch: {error}"
            return
        ours, ours_s = _timed(self._eager, sample)
        theirs, theirs_s = _timed(rival, sample)
        changed = float((ours != theirs).float().mean())
        if changed <= MAX_LABELS_CHANGED and theirs_s < ours_s:
            self._current = rival
        self.reason = (
            f"{self._current.name}: a batch takes {ours_s:.3f} s with torch and {theirs_s:.3f} s "
            f"with openvino, {changed:.1e} of the labels differ"
        )
        logger.info("engine %s", self.reason)


def _timed(engine: Engine, sample: Tensor) -> tuple[Tensor, float]:
    """Labels of a sample, and the time of the second run in seconds."""
    engine(sample)
    start = time.perf_counter()
    labels = engine(sample).argmax(dim=1)
    return labels, time.perf_counter() - start
