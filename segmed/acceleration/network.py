"""A network in int8 by NNCF, with the layers that stay in float32."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from segmed.acceleration.calibration import Windows
from segmed.errors import ModelError, UsageError
from segmed.inference.openvino_engine import (
    HINTS,
    compile_hints,
    converted,
    noise_difference,
    noise_window,
    run_in_child,
)
from segmed.inference.silent_openvino import has_openvino, import_openvino
from segmed.package.int8 import int8_content

if TYPE_CHECKING:
    import openvino as ov

CHILD = Path(__file__).with_name("nncf_child.py")

LAYER_TYPES = frozenset(
    {
        "Convolution",
        "ConvolutionBackpropData",
        "GroupConvolution",
        "GroupConvolutionBackpropData",
        "MatMul",
    }
)
"""Operations with weights, which are the ones that int8 makes faster; norms stay in float32."""

_GIVEN = {"model": "float32.xml", "windows": "windows.npy"}
"""Files of a quantiser's folder that every task of the child reads."""

CHILD_SECONDS = 3600
"""Longest quantisation, in seconds."""


@dataclass(frozen=True)
class QuantisedNetwork:
    """Network in int8, not yet measured on cases.

    Attributes:
        content: Content of the int8 file.
        float32_layers: Layers that stay in float32.
        noise_difference: Mean difference from float32 on a window of noise.
        generated_kernels: It runs with kernels that OpenVINO generates for it.
        bf16: What is not int8 computes in bfloat16, on processors with units for it.
        versions: Versions of NNCF and OpenVINO.
    """

    content: bytes
    float32_layers: tuple[str, ...]
    noise_difference: float
    generated_kernels: bool
    bf16: bool
    versions: dict[str, str]


def require_nncf() -> None:
    """Check that OpenVINO and NNCF are installed.

    Raises:
        UsageError: One is not.
    """
    if not has_openvino() or importlib.util.find_spec("nncf") is None:
        raise UsageError("quantisation needs NNCF and OpenVINO: pip install 'segmed[int8]'")


class Quantiser:
    """Quantises one network, several times with other layers left in float32.

    Args:
        network: The complete network, see `complete_network`.
        windows: Calibration windows `[count, C, *window]`.
        folder: An empty folder for files of work.

    Raises:
        ModelError: OpenVINO cannot convert the network.
    """

    def __init__(self, network: nn.Module, windows: Windows, folder: Path) -> None:
        self._network = network
        self._folder = folder
        self._windows = windows
        self._made: tuple[str, ...] | None = None
        model = converted(network, (1, *windows.shape[1:]))
        self.outer_layers, self._layers = layers_of(model)
        self._noise = noise_window((1, *windows.shape[1:]))
        import_openvino().save_model(model, folder / "float32.xml", compress_to_fp16=False)
        np.save(folder / "windows.npy", windows)
        np.save(folder / "noise.npy", self._noise)

    def quantise(self, float32_layers: Sequence[str], *, bf16: bool = False) -> QuantisedNetwork:
        """The network in int8 but for some layers.

        Args:
            float32_layers: Layers that are not quantised.
            bf16: Compute them, and all other operations that are not quantised, in bfloat16.

        Raises:
            ModelError: NNCF or the compiler cannot quantise it.
        """
        folder = self._folder
        if self._made != tuple(float32_layers):
            self._run(
                "quantise",
                versions=str(folder / "versions.json"),
                out=str(folder / "int8.xml"),
                float32_layers=list(float32_layers),
            )
            self._made = tuple(float32_layers)
        generated_kernels, found = trial(folder / "int8.xml", folder / "noise.npy", bf16=bf16)
        with torch.inference_mode():
            expected = self._network(torch.from_numpy(self._noise))
        xml, weights = ((folder / f"int8.{kind}").read_bytes() for kind in ("xml", "bin"))
        return QuantisedNetwork(
            content=int8_content(xml, weights),
            float32_layers=tuple(float32_layers),
            noise_difference=noise_difference(found, expected),
            generated_kernels=generated_kernels,
            bf16=bf16,
            versions=json.loads((folder / "versions.json").read_text(encoding="utf-8")),
        )

    def by_error(self) -> list[str]:
        """Layers of the latest int8 network, those that add the largest error first."""
        folder = self._folder
        inner = [name for name in self._layers if name not in self.outer_layers]
        self._run(
            "compare",
            int8=str(folder / "int8.xml"),
            errors=str(folder / "errors.json"),
            layers=inner,
        )
        errors: dict[str, float] = json.loads((folder / "errors.json").read_text(encoding="utf-8"))
        return sorted(inner, key=lambda name: -errors[name])

    def _run(self, task: str, **wish: Any) -> None:
        """Have the child do something with the float32 model and the windows."""
        files = {name: str(self._folder / file) for name, file in _GIVEN.items()}
        _run({"task": task, **files, **wish})


def trial(model: Path, noise: Path, *, bf16: bool = False) -> tuple[bool, Tensor]:
    """Run a model with generated kernels or, where its compiler dies of them, without.

    Args:
        model: The XML file of the model.
        noise: A window, as NumPy's file; the maps are written beside it.
        bf16: See `compile_hints`.

    Returns:
        Whether it runs with generated kernels, and its maps.

    Raises:
        ModelError: It runs neither way.
    """
    found, is_generated = noise.with_name("found.npy"), True
    try:
        run_in_child(model, noise, found, compile_hints(generated_kernels=True, bf16=bf16))
    except ModelError:
        is_generated = False
        run_in_child(model, noise, found, compile_hints(generated_kernels=False, bf16=bf16))
    return is_generated, torch.from_numpy(np.load(found))


def layers_of(model: ov.Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the first and last layers of a model, and of all, in order of computation.

    A first layer has no other before it, a last layer none behind it; of an ensemble, each member
    has its own.
    """
    before: dict[str, bool] = {}
    nodes = model.get_ordered_ops()
    for node in nodes:
        sources = [node.input_value(n).get_node() for n in range(node.get_input_size())]
        before[node.get_friendly_name()] = any(
            before[source.get_friendly_name()] or source.get_type_name() in LAYER_TYPES
            for source in sources
        )
    behind: set[str] = set()
    layers, outer = [], set()
    for node in reversed(nodes):
        name, is_layer = node.get_friendly_name(), node.get_type_name() in LAYER_TYPES
        if is_layer:
            layers.append(name)
            if not before[name] or name not in behind:
                outer.add(name)
        if is_layer or name in behind:
            behind |= {
                node.input_value(n).get_node().get_friendly_name()
                for n in range(node.get_input_size())
            }
    ordered = tuple(reversed(layers))
    return tuple(name for name in ordered if name in outer), ordered


def _run(request: dict[str, Any]) -> None:
    command = [sys.executable, "-I", str(CHILD), json.dumps({**request, "hints": HINTS})]
    try:
        done = subprocess.run(command, capture_output=True, timeout=CHILD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"NNCF did not end within {CHILD_SECONDS} s; give fewer windows"
        ) from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise ModelError(
            f"NNCF cannot quantise the network (status {done.returncode}: {last[0][:200]}); use "
            "engine openvino"
        )
