"""Weights that users bring: torchvision's VGG16, VGG16-BN and ResNets, MedicalNet, and our own.

Files are read without pickle, names are brought to ours, kernels are adapted to other channels and
inflated to 3D. What was used and what was not is reported, and a file of which little fits is
refused: a reader that filters by name would load nothing without a message.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segmed.errors import WeightsError
from segmed.models.blocks import BATCH_NORM, CONV_TYPES
from segmed.models.deeplabv3plus import DeepLabV3Plus
from segmed.models.encoders.resnet import ResNetEncoder
from segmed.models.fcn import FCN
from segmed.models.inflate import Inflation, fit_kernel

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the tensors."""

PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel and compiled modules put before every name."""

LITTLE = 0.5
"""A file that fills a smaller share of the tensors it should fill is refused."""


@dataclass(frozen=True)
class WeightsReport:
    """Report on loaded weights: matched, missing and unused tensors.

    Attributes:
        matched: The file's tensors that were loaded, by the file's names.
        missing: Tensors of the network's part in question that the file did not fill.
        unexpected: The file's tensors that were not used.
        misshapen: Those of them that have a place, but another shape.
        adapted: Loaded after a change of channels or dimension.
        num_in_file: Tensors in the file.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    adapted: tuple[str, ...]
    num_in_file: int

    def __str__(self) -> str:
        text = f"{len(self.matched)} of {self.num_in_file} tensors loaded"
        for what, names in (
            ("adapted", self.adapted),
            ("not in the file", self.missing),
            ("not used", self.unexpected),
        ):
            if names:
                shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
                text += f"; {len(names)} {what} ({shown})"
        return text


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a `.pth`, `.pt` or `.safetensors` file, without wrappers and prefixes.

    Args:
        path: The file.

    Returns:
        Tensors by name.

    Raises:
        WeightsError: The file is missing, contains more than tensors, or none.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no file of weights at {path}")
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path.name} is not a plain file of tensors ({first}): save a state dict"
        ) from error
    return unwrap(content, source=path.name)


def unwrap(content: object, *, source: str = "the file") -> dict[str, Tensor]:
    """Tensors out of what a training script saved.

    Args:
        content: A mapping of tensors, or one that contains such a mapping.
        source: Its name, for the message.

    Returns:
        Tensors by name, without the prefixes of data-parallel and compiled modules.

    Raises:
        WeightsError: There are no tensors in it.
    """
    while isinstance(content, Mapping):
        inner = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = content[inner[0]]
    tensors = content.items() if isinstance(content, Mapping) else ()
    state = {_strip(str(name)): value for name, value in tensors if isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"{source} contains no tensors by name: save a state dict")
    return state


def _strip(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name


def load_weights(
    network: nn.Module,
    source: Path | str | Mapping[str, object],
    *,
    inflation: Inflation = "centre",
    slice_axis: int = -1,
) -> WeightsReport:
    """Put a file's weights into a network, as far as they fit.

    Args:
        network: Made by `build_model`; its weights are overwritten.
        source: A file, or what is in it.
        inflation: How 2D kernels become 3D: `centre` equals the 2D convolution on every slice,
            `mean` only on constant input.
        slice_axis: Spatial axis along which 2D kernels are inflated.

    Returns:
        What was matched, missing and unexpected.

    Raises:
        WeightsError: The file cannot be read, or little of it fits; the network is unchanged then.
    """
    state = unwrap(source) if isinstance(source, Mapping) else read_weights(source)
    own = network.state_dict()
    names, scope = _names_for(network, state, own)
    loaded: dict[str, Tensor] = {}
    matched, misshapen, adapted = [], [], []
    for theirs, ours in names.items():
        fitted = fit_kernel(
            state[theirs], own[ours].shape, inflation=inflation, slice_axis=slice_axis
        )
        if fitted is None:
            misshapen.append(theirs)
            continue
        if fitted.shape != state[theirs].shape:
            adapted.append(theirs)
        loaded[ours] = fitted
        matched.append(theirs)
    expected = [name for name in own if name.startswith(scope)]
    report = WeightsReport(
        matched=tuple(matched),
        missing=tuple(name for name in expected if name not in loaded),
        unexpected=tuple(name for name in state if name not in matched),
        misshapen=tuple(misshapen),
        adapted=tuple(adapted),
        num_in_file=len(state),
    )
    if len(loaded) < LITTLE * len(expected) or not loaded:
        raise WeightsError(
            f"only {len(loaded)} of the {len(expected)} tensors that weights for "
            f"{type(network).__name__} should fill match this file of {len(state)} "
            f"(such as {next(iter(state))!r}): take a file for this network, or a network with the "
            "file's backbone"
        )
    network.load_state_dict({**own, **loaded})
    return report


def _names_for(
    network: nn.Module, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Our names for the file's, and the prefixes of the part of the network that they fill."""
    direct = {name: name for name in state if name in own}
    if len(direct) >= LITTLE * len(own):
        return direct, ("",)
    if isinstance(network, FCN) and any(name.startswith("features.") for name in state):
        return _vgg_names(network, state), ("encoder.", "head.")
    if isinstance(network, DeepLabV3Plus) and isinstance(network.encoder, ResNetEncoder):
        return {name: f"encoder.{name}" for name in state if f"encoder.{name}" in own}, (
            "encoder.",
        )
    return direct, ("",)


def _vgg_names(network: FCN, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names by position: torchvision counts convolutions, norms, activations and poolings."""
    convs, norms = _rows(network)
    names: dict[str, str] = {}
    places = {"conv": iter(convs), "norm": iter(norms)}
    numbers = {
        int(found[1]) for name in state if (found := re.fullmatch(r"features\.(\d+)\..+", name))
    }
    for number in sorted(numbers):
        kind = "conv" if state[f"features.{number}.weight"].ndim > 1 else "norm"
        place = next(places[kind], None)
        for name in state:
            if place is not None and name.startswith(f"features.{number}."):
                names[name] = f"{place}.{name.rsplit('.', 1)[1]}"
    for theirs, ours in (("classifier.0", "head.0.0"), ("classifier.3", "head.2.0")):
        for part in ("weight", "bias"):
            if f"{theirs}.{part}" in state:
                names[f"{theirs}.{part}"] = f"{ours}.{part}"
    own = network.state_dict()
    return {theirs: ours for theirs, ours in names.items() if ours in own}


def _rows(network: FCN) -> tuple[list[str], list[str]]:
    batch_norms = tuple(BATCH_NORM.values())
    convs, norms = [], []
    for name, module in network.encoder.named_modules(prefix="encoder"):
        if isinstance(module, CONV_TYPES):
            convs.append(name)
        elif isinstance(module, batch_norms):  # type: ignore[arg-type]  # a tuple of classes
            norms.append(name)
    return convs, norms
