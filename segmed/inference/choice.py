"""Choice of the engine that runs a network, by its name.

One rule of `auto` for every command, the same for every image and at every start: a GPU, where
there is one; OpenVINO, where it is installed and can run the network; else eager PyTorch. Nothing
is timed: an image gets the same labels from `predict`, from an archive that was interrupted and
from a served model. On a CPU OpenVINO is about twice as fast as PyTorch; the conversion takes ten
seconds or more, once a model where converted models are kept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from segmed.errors import ModelError, UsageError
from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.engine import Engine, TorchEngine, activation_of
from segmed.inference.openvino_engine import Conversion, OpenVinoEngine
from segmed.inference.silent_openvino import has_openvino
from segmed.inference.vocabulary import engine_named
from segmed.package import ModelPackage

logger = logging.getLogger(__name__)

MAX_LABELS_CHANGED = 1e-4
"""Share of labels in which an engine may differ from eager float32."""


@dataclass(frozen=True)
class EngineRequest:
    """Request for an engine.

    Attributes:
        name: One of `segmed.inference.vocabulary.ENGINES`.
        device: Where it shall run.
        window_batch: Shape of a full batch of windows, `[B, C, *window]`.
        cache_dir: Folder of converted models; None keeps nothing.
        mirror_axes: Axes of the window whose mirror images a GPU averages within its graphs.
    """

    name: str
    device: torch.device
    window_batch: tuple[int, ...]
    cache_dir: Path | None = None
    mirror_axes: tuple[int, ...] = ()


def make_engine(package: ModelPackage, request: EngineRequest) -> Engine:
    """The engine for one package.

    Raises:
        UsageError: The name is unknown, not installed, or does not go with the device.
    """
    name = engine_named(request.name)
    network, activation = package.build(), activation_of(package.plan)
    window = (1, *request.window_batch[1:])
    conversion = Conversion(package.hash, window, request.cache_dir, activation)
    if name == "openvino":
        if request.device.type != "cpu":
            raise UsageError("engine 'openvino' runs on the CPU: give device cpu, or engine torch")
        return OpenVinoEngine(network, conversion)
    if name == "compile" and request.device.type == "cuda":
        return CudaEngine(
            network,
            request.device,
            compiled=True,
            mirror_axes=request.mirror_axes,
            activation=activation,
        )
    if name == "compile":
        return TorchEngine(compiled(network), request.device, "compile", activation=activation)
    if name == "torch":
        return TorchEngine(network, request.device, activation=activation)
    if request.device.type == "cuda":
        return CudaEngine(
            network, request.device, mirror_axes=request.mirror_axes, activation=activation
        )
    if not has_openvino():
        return TorchEngine(network, request.device, activation=activation)
    return _openvino_or_eager(network, conversion)


def _openvino_or_eager(network: nn.Module, conversion: Conversion) -> Engine:
    try:
        return OpenVinoEngine(network, conversion)
    except ModelError as error:
        logger.warning("engine torch: %s", error)
        return TorchEngine(network, torch.device("cpu"), activation=conversion.activation)


def compiled(network: nn.Module) -> nn.Module:
    """A network through `torch.compile`; it compiles at the first window, for minutes."""
    network.compile(dynamic=False)
    return network
