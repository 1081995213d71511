"""Choice of the engine that runs a network, by its name.

One rule of `auto` for every command, the same for every image and at every start: a GPU, where
there is one; OpenVINO, where it is installed and can run the network; else eager PyTorch. OpenVINO
runs the package's int8 network, if one was accepted, the plan allows it and the processor has int8
units. Nothing is timed: an image gets the same labels from `predict`, from an archive that was
interrupted and from a served model. On a CPU OpenVINO is about twice as fast as PyTorch; the
conversion takes ten seconds or more, once a model where converted models are kept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from segmed.errors import ModelError, UsageError
from segmed.freed_memory import keep_freed_memory
from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.engine import Activation, Engine, TorchEngine, activation_of
from segmed.inference.int8_units import has_int8_units
from segmed.inference.openvino_engine import Conversion, OpenVinoEngine
from segmed.inference.shown_members import beside_members, shown_members
from segmed.inference.silent_openvino import has_openvino
from segmed.inference.streams import streams_for
from segmed.inference.vocabulary import engine_named
from segmed.package import ModelPackage

logger = logging.getLogger(__name__)

ON_CPU_ALONE = ("openvino", "int8")
"""Engines that run on no GPU."""


@dataclass(frozen=True)
class EngineRequest:
    """Request for an engine.

    Attributes:
        name: One of `segmed.inference.vocabulary.ENGINES`.
        device: Where it shall run.
        window_batch: Shape of a full batch of windows, `[B, C, *window]`.
        cache_dir: Folder of converted models; None keeps nothing.
        mirror_axes: Axes of the window whose mirror images a GPU averages within its graphs.
        shows_members: Give the labels of the members of an ensemble, too; not in int8.
        bounds_memory: Memory is bounded: what PyTorch frees goes back to the system at once.
    """

    name: str
    device: torch.device
    window_batch: tuple[int, ...]
    cache_dir: Path | None = None
    mirror_axes: tuple[int, ...] = ()
    shows_members: bool = False
    bounds_memory: bool = False

    @property
    def streams(self) -> int:
        """Windows that an engine for the CPU may run at once; one where memory is bounded."""
        if self.bounds_memory:
            return 1
        return streams_for(self.window_batch[2:], torch.get_num_threads())

    def build(self, package: ModelPackage) -> nn.Module:
        """The network of a package that the engine runs."""
        return shown_members(package)() if self.shows_members else package.build()

    def activation(self, package: ModelPackage) -> Activation:
        """The activation of its maps."""
        found, own = activation_of(package.plan), package.plan.encoding.num_channels
        return beside_members(found, own) if self.shows_members else found

    def num_maps(self, package: ModelPackage) -> int | None:
        """Channels of the classes, if labels of members follow them."""
        return package.plan.encoding.num_channels if self.shows_members else None


def make_engine(package: ModelPackage, request: EngineRequest) -> Engine:
    """The engine for one package.

    Raises:
        UsageError: The name is unknown, not installed, or does not go with the device.
    """
    name = engine_named(request.name)
    if request.device.type == "cuda":
        return _engine_on_gpu(name, package, request)
    activation = request.activation(package)
    if name == "compile":
        network = compiled(request.build(package))
        return TorchEngine(network, request.device, "compile", activation=activation)
    if name == "int8":
        return _int8_engine(package, request)
    if name == "openvino":
        return _openvino(package, request)
    if name == "auto" and has_openvino():
        found = _openvino_or_none(package, request)
        if found is not None:
            return found
    if not request.bounds_memory:
        keep_freed_memory()
    return TorchEngine(request.build(package), request.device, activation=activation)


def _conversion_of(package: ModelPackage, request: EngineRequest) -> Conversion:
    window = (1, *request.window_batch[1:])
    key, num_maps = package.float32_hash, request.num_maps(package)
    key = f"{key}-members" if request.shows_members else key
    return Conversion(key, window, request.cache_dir, request.activation(package), num_maps)


def _openvino(package: ModelPackage, request: EngineRequest) -> Engine:
    conversion = _conversion_of(package, request)
    return OpenVinoEngine(lambda: request.build(package), conversion, streams=request.streams)


def _engine_on_gpu(name: str, package: ModelPackage, request: EngineRequest) -> Engine:
    if name in ON_CPU_ALONE:
        raise UsageError(f"engine {name!r} runs on the CPU: give device cpu, or engine torch")
    activation = request.activation(package)
    if name == "torch":
        return TorchEngine(request.build(package), request.device, activation=activation)
    return CudaEngine(
        request.build(package),
        request.device,
        compiled=name == "compile",
        mirror_axes=request.mirror_axes,
        activation=activation,
        num_maps=request.num_maps(package),
    )


def _int8_engine(package: ModelPackage, request: EngineRequest) -> Engine:
    if package.accepted_int8 is None:
        raise UsageError(
            f"package {package.hash[:12]} ({package.architecture}) has no int8 network: "
            "`segmed model quantise` makes and measures one, or use engine auto"
        )
    conversion = _conversion_of(package, replace(request, shows_members=False))
    int8, streams = package.accepted_int8, request.streams
    return OpenVinoEngine(package.build, conversion, int8=int8, streams=streams)


def _openvino_or_none(package: ModelPackage, request: EngineRequest) -> Engine | None:
    """The first that runs of OpenVINO in int8, where it may be used, and in float32."""
    if uses_int8(package):
        try:
            return _int8_engine(package, request)
        except ModelError as error:
            logger.warning("engine openvino in float32: %s", error)
    try:
        return _openvino(package, request)
    except ModelError as error:
        logger.warning("engine torch: %s", error)
        return None


def uses_int8(package: ModelPackage) -> bool:
    """Return whether engine `auto` runs a package in int8 on this processor; log why not."""
    allowed = package.plan.inference.allow_int8
    if not allowed or package.accepted_int8 is None:
        return False
    if not has_int8_units():
        logger.info("engine openvino in float32: this processor has no int8 units")
    return has_int8_units()


def compiled(network: nn.Module) -> nn.Module:
    """A network through `torch.compile`; it compiles at the first window, for minutes."""
    network.compile(dynamic=False)
    return network
