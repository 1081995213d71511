"""OpenVINO on the CPU: two to four times eager PyTorch's speed, in float32, with the same labels.

The converter is called at its core, the PyTorch front end. A converted model is first compiled and
run in a process of its own: a compiler can die of a segmentation fault, and a job must outlive
that. What it says there of some noise must be what PyTorch says. A network in int8, which its
package contains, is tried in the same way before its first use on a machine.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from segmed.errors import ModelError, UsageError
from segmed.inference.engine import Activation, softmax, value_scale
from segmed.inference.int8_units import has_bf16_units
from segmed.inference.signal_stack import unchanged_signal_stack
from segmed.inference.silent_openvino import has_openvino, import_openvino
from segmed.io.atomic import flush
from segmed.package.int8 import Int8Network

if TYPE_CHECKING:
    import openvino as ov


HINTS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
    "SNIPPETS_MODE": "DISABLE",
}
"""How models are compiled: one window at a time, in float32, without generated kernels.

OpenVINO 2026.4 dies of a segmentation fault while it fuses group norms of residual blocks into such
kernels (DeepLabv3+); doing without them costs other networks about 4 % of their speed. An int8
network has them where it was tried with them, see `compile_hints`.
"""

TRY_SECONDS = 300
"""Longest trial of a converted model, in seconds."""

SUFFIXES = (".bin", ".xml", ".sha256")
"""Of the files of a conversion that is kept, in the order in which they are put there."""

MAX_DIFFERENCE = 5e-3
"""Largest difference from eager PyTorch in the trial, of logits relative to the largest.

Usual are 1e-5 to 1e-4.
"""

MIN_LABELS_ALIKE = 0.98
"""Smallest share of equal labels of the members in the trial: noise has many near ties."""

NOISE_FACTOR, NOISE_FLOOR = 2.0, 0.01
"""An int8 network may differ on noise by so many times what it did when it was made, and by a
hundredth in any case: processors round in other ways."""

Building = Callable[[], nn.Module]
"""Builds a network, on the CPU, in evaluation mode; called only for a conversion or a trial."""

_TRY = """
import json, sys
sys.modules["openvino_telemetry"] = None
import numpy as np, openvino as ov
model = ov.Core().compile_model(sys.argv[1], "CPU", json.loads(sys.argv[2]))
np.save(sys.argv[4], model([np.load(sys.argv[3])])[0])
"""


def compile_hints(*, generated_kernels: bool, bf16: bool = False) -> dict[str, str]:
    """Hints of a compilation.

    Args:
        generated_kernels: With kernels that OpenVINO generates for the model.
        bf16: What is not int8 computes in bfloat16 where the processor has units for it, in float32
            elsewhere, which is closer to what was trained, and faster there.
    """
    hints = dict(HINTS)
    if generated_kernels:
        del hints["SNIPPETS_MODE"]
    if bf16 and has_bf16_units():
        hints["INFERENCE_PRECISION_HINT"] = "bf16"
    return hints


@dataclass(frozen=True)
class Conversion:
    """Network to convert, and the path of the converted file.

    Attributes:
        key: Identity of the network, such as a package's hash.
        shape: One window as the network gets it, `[1, C, *window]`; the model is fixed to it.
        cache_dir: Folder of converted models; None keeps nothing.
        activation: See `segmed.inference.engine.activation_of`; converted with the network.
        num_maps: Channels of the classes, if labels of members follow them.
    """

    key: str
    shape: tuple[int, ...]
    cache_dir: Path | None = None
    activation: Activation = softmax
    num_maps: int | None = None

    @property
    def path(self) -> Path | None:
        """The converted model's file."""
        if self.cache_dir is None:
            return None
        version = import_openvino().get_version().split("-")[0]
        size = "x".join(map(str, self.shape))
        return self.cache_dir / f"openvino-{version}" / f"{self.key}-{size}.xml"

    @property
    def is_cached(self) -> bool:
        """Return whether the conversion exists and its files are unchanged."""
        if self.path is None:
            return False
        if not all(self.path.with_suffix(suffix).is_file() for suffix in SUFFIXES):
            return False
        digest = self.path.with_suffix(".sha256").read_text(encoding="ascii")
        return digest == _digest(self.path)


class OpenVinoEngine:
    """One network, converted for windows of one shape, each of which is a request of its own.

    On a CPU a batch gains nothing, and most small images have one window, which would have to be
    filled up to a batch. Small windows run side by side, see `segmed.inference.streams`.

    Args:
        build: Builds the network.
        conversion: Shape and cache.
        int8: The network in int8, to be run instead.
        streams: Windows that are run at once; as many threads may call the engine at once.

    Raises:
        UsageError: OpenVINO is not installed.
        ModelError: The network cannot be converted, or gives other values than it should.
    """

    def __init__(
        self,
        build: Building,
        conversion: Conversion,
        *,
        int8: Int8Network | None = None,
        streams: int = 1,
    ) -> None:
        self.name = "openvino" if int8 is None else "int8"
        if not has_openvino():
            raise UsageError(
                f"engine {self.name!r} is not installed: pip install 'segmed[openvino]'"
            )
        self.device = torch.device("cpu")
        self.shape = conversion.shape
        self.streams = streams
        core = import_openvino().Core()
        if int8 is not None:
            conversion = replace(conversion, key=f"{conversion.key}-{int8.record.form[:24]}")
        if conversion.is_cached:
            model = core.read_model(conversion.path)
        else:
            complete = complete_network(build(), conversion.activation)
            model = _sound_model(complete, conversion, int8)
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": streams}
        with unchanged_signal_stack():
            self._model = core.compile_model(model, "CPU", {**_hints_of(int8), **threads})
        self._own = _OfThread()

    def __call__(self, windows: Tensor) -> Tensor:
        """Maps `[B, K, *window]`; valid until the next call of the same thread."""
        whole = windows.cpu().contiguous()
        if len(whole) == 1:
            return self._started(0, whole)()
        maps: Tensor | None = None
        for first in range(0, len(whole), self.streams):
            part = range(first, min(first + self.streams, len(whole)))
            ends = [self._started(slot, whole[n : n + 1]) for slot, n in enumerate(part)]
            for number, end in zip(part, ends, strict=True):
                found = end()
                if maps is None:
                    maps = found.new_empty((len(whole), *found.shape[1:]))
                maps[number] = found[0]
        assert maps is not None  # a batch has at least one window
        return maps

    def _started(self, slot: int, window: Tensor) -> Callable[[], Tensor]:
        """Start a window in one of this thread's requests; the result waits for its end."""
        requests = self._own.requests
        while len(requests) <= slot:
            requests.append(self._model.create_infer_request())
        request = requests[slot]
        request.start_async([window.numpy()], share_inputs=True)

        def end() -> Tensor:
            request.wait()
            return torch.from_numpy(np.asarray(request.get_output_tensor(0).data))

        return end


class _OfThread(threading.local):
    """Requests of one thread: their buffers are fixed."""

    def __init__(self) -> None:
        self.requests: list[ov.InferRequest] = []


class _WithActivation(nn.Module):
    def __init__(self, network: nn.Module, activation: Activation) -> None:
        super().__init__()
        self.network = network
        self.activation = activation

    def forward(self, windows: Tensor) -> Tensor:
        """Class probabilities, or the logits if the plan averages them."""
        return self.activation(self.network(windows))


def complete_network(network: nn.Module, activation: Activation) -> nn.Module:
    """A network with the activation after it, as it is converted."""
    return _WithActivation(network, activation).eval()


def converted(network: nn.Module, shape: tuple[int, ...]) -> ov.Model:
    """OpenVINO's model of a complete network, fixed to one window, in float32.

    Raises:
        ModelError: It cannot be converted.
    """
    front_ends = import_openvino("openvino.frontend")
    decoders = import_openvino("openvino.frontend.pytorch.ts_decoder")
    example = torch.zeros(shape)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # OpenVINO's front end reads traces, which PyTorch 2.13 calls deprecated; the shape is
            # fixed, so a trace's constants are right.
            warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*jit.*")
            warnings.filterwarnings("ignore", category=TracerWarning)
            decoder = decoders.TorchScriptPythonDecoder(network, example_input=(example,))
            front = front_ends.FrontEndManager().load_by_framework("pytorch")
            model: ov.Model = front.convert(front.load(decoder))
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelError(f"OpenVINO cannot convert the network: {detail}") from error
    model.reshape(list(shape))
    return model


def _sound_model(network: nn.Module, conversion: Conversion, int8: Int8Network | None) -> ov.Model:
    """Try a converted model in a child process; keep it in the cache, never half of it, if it runs.

    Args:
        network: The complete network in float32, whose values are expected.
        conversion: Shape and cache.
        int8: The network in int8, which this process reads only after the trial.

    Raises:
        ModelError: The child died, took too long, or found other values than it should.
    """
    path = conversion.path
    place = None if path is None else path.parent
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".part-") as scratch:
        draft = Path(scratch) / "model.xml"
        if int8 is None:
            model = converted(network, conversion.shape)
            import_openvino().save_model(model, draft, compress_to_fp16=False)
        else:
            xml, weights = int8.representation()
            draft.write_text(xml, encoding="utf-8")
            draft.with_suffix(".bin").write_bytes(weights)
        given, found = Path(scratch) / "given.npy", Path(scratch) / "found.npy"
        np.save(given, noise_window(conversion.shape))
        run_in_child(draft, given, found, _hints_of(int8))
        with torch.inference_mode():
            expected = network(torch.from_numpy(np.load(given)))
        values = torch.from_numpy(np.load(found))
        if int8 is None:
            _require_equal(values, expected, conversion.num_maps)
        else:
            _require_as_made(int8, values, expected)
        if path is not None:
            digest = draft.with_suffix(".sha256")
            digest.write_text(_digest(draft), encoding="ascii")
            for suffix in SUFFIXES:
                flush(draft.with_suffix(suffix))
                draft.with_suffix(suffix).replace(path.with_suffix(suffix))
        return import_openvino().Core().read_model(path or draft)


def _hints_of(int8: Int8Network | None) -> dict[str, str]:
    if int8 is None:
        return dict(HINTS)
    return compile_hints(generated_kernels=int8.record.generated_kernels, bf16=int8.record.bf16)


def run_in_child(model: Path, given: Path, found: Path, hints: dict[str, str]) -> None:
    """Compile and run a model in a child process, which may die of it.

    Args:
        model: The XML file of the model; its constants lie beside it.
        given: A window, as NumPy's file.
        found: Its maps, written.
        hints: See `compile_hints`.

    Raises:
        ModelError: The child died or took too long.
    """
    command = [sys.executable, "-I", "-c", _TRY]
    command += [str(model), json.dumps(hints), str(given), str(found)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TRY_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"OpenVINO did not compile it within {TRY_SECONDS} s") from error
    if done.returncode != 0:
        raise ModelError(
            f"OpenVINO cannot run the network: its compiler ended with {done.returncode} in a "
            "trial; use engine torch"
        )


def noise_window(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The window of noise of a trial: the same each time."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def noise_difference(found: Tensor, expected: Tensor) -> float:
    """Mean difference of two maps, relative to the largest value expected."""
    return float((found - expected).abs().mean()) / value_scale(expected)


def _require_equal(found: Tensor, expected: Tensor, num_maps: int | None) -> None:
    if num_maps is not None:
        alike = float((found[:, num_maps:] == expected[:, num_maps:]).float().mean())
        if alike < MIN_LABELS_ALIKE:
            raise ModelError(
                f"OpenVINO gives the members other labels in {1 - alike:.1%}; use engine torch"
            )
        found, expected = found[:, :num_maps], expected[:, :num_maps]
    difference = float((found - expected).abs().max()) / value_scale(expected)
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(f"OpenVINO gives values that differ by {difference:.1e}; use engine torch")


def _require_as_made(int8: Int8Network, found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape:
        raise ModelError(
            f"the int8 network gives maps {tuple(found.shape)}, not {tuple(expected.shape)}; use "
            "engine openvino, or quantise the model again"
        )
    difference, made = noise_difference(found, expected), int8.record.noise_difference
    if not difference <= max(NOISE_FLOOR, NOISE_FACTOR * made):
        raise ModelError(
            f"the int8 network gives values that differ from float32 by {difference:.1e} on noise, "
            f"by {made:.1e} where it was accepted; use engine openvino, or quantise the model "
            "again on this machine"
        )


def _digest(path: Path) -> str:
    """SHA-256 of a model's two files."""
    digest = hashlib.sha256()
    for suffix in (".xml", ".bin"):
        with path.with_suffix(suffix).open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()
