"""CUDA inference: 16-bit arithmetic, one captured graph a batch size.

A graph is captured on the engine's own device and stream, compared with the uncaptured network on
another input before it is used, and owns the weights that it refers to. Mirror images are averaged
within the graph. Activations beyond the range of float16 are noticed on the device, see
`CudaEngine.fall_back`.

On a CPU the same engine runs without graphs; only tests use that.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from segmed.errors import ModelError, is_out_of_memory
from segmed.inference.device_memory import peak_of
from segmed.inference.engine import Activation, softmax, value_scale
from segmed.inference.ensemble import mirrored

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Passes on a side stream before a graph is captured, as PyTorch requires."""

MAX_GRAPH_DIFFERENCE = 1e-2
"""Largest difference between a graph and the uncaptured network (both 16-bit).

Of a probability; of logits relative to the largest.
"""


def _comes_of_memory(error: BaseException | None) -> bool:
    """Return whether memory ran out; the end of a failed capture raises another error over it."""
    while error is not None and not is_out_of_memory(error):
        error = error.__context__
    return error is not None


class _Replay(Protocol):
    """A pass over fixed tensors that can be run again."""

    def replay(self) -> None:
        """Run it."""
        ...


@dataclass
class _Uncaptured:
    """A pass on a CPU, where there are no graphs."""

    engine: CudaEngine
    source: Tensor
    target: Tensor

    def replay(self) -> None:
        """Run the network."""
        self.target.copy_(self.engine.forward(self.source))


@dataclass(frozen=True)
class _Graph:
    """A captured pass with its fixed input and output."""

    graph: _Replay
    source: Tensor
    target: Tensor


class CudaEngine:
    """One network on a GPU in float16, in float32 after an overflow.

    Not safe for several threads at once: input and output of a graph are fixed buffers.

    Args:
        network: The network; it is copied, so that the weights that graphs use are never moved.
        device: The GPU, with or without an index.
        compiled: Compile the network by `torch.compile` first; takes about a minute.
        mirror_axes: Spatial axes of the window, over whose mirror images the mean is taken.
        precision: Type of weights and activations.
        activation: See `segmed.inference.engine.activation_of`.
        num_maps: Channels of the classes, if labels of members follow them.
    """

    streams = 1

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        *,
        compiled: bool = False,
        mirror_axes: Sequence[int] = (),
        precision: torch.dtype = torch.float16,
        activation: Activation = softmax,
        num_maps: int | None = None,
    ) -> None:
        self.num_maps = num_maps
        self.name = "cuda-compile" if compiled else "cuda"
        self._is_cuda = device.type == "cuda"
        if self._is_cuda and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self.precision = precision
        self.mirror_axes = tuple(mirror_axes)
        self._original = copy.deepcopy(network).eval()
        self._is_compiled = compiled
        self._activation = activation
        self._largest_batch = 2**30
        self._window_bytes: int | None = None
        with self._here():
            self._is_finite = torch.ones((), dtype=torch.bool, device=self.device)
        self._load()

    def __call__(self, windows: Tensor) -> Tensor:
        """Maps `[B, K, *window]`, float32, on the GPU; valid until the next call."""
        with torch.inference_mode(), self._here():
            found: Tensor | None = None
            first = 0
            while first < len(windows):
                part = windows[first : first + self._largest_batch]
                maps = self._replay(part)
                if maps is None:
                    continue  # out of memory: again in halves
                if len(part) == len(windows):
                    return maps
                if found is None:
                    found = maps.new_empty((len(windows), *maps.shape[1:]))
                found[first : first + len(part)] = maps
                first += len(part)
            assert found is not None
            return found

    def fall_back(self) -> bool:
        """Change to float32 if activations overflowed since the last call; whether it did.

        Raises:
            ModelError: The network gives values that are not finite in float32 either.
        """
        if bool(self._is_finite):
            return False
        if self.precision is torch.float32:
            raise ModelError("the network gives values that are not finite, also in float32")
        logger.warning("activations exceed float16: the network runs in float32 from now on")
        self.precision = torch.float32
        self._load()
        return True

    def window_bytes(self, shape: Sequence[int]) -> int:
        """Peak memory of one window inside the network, in bytes; measured once.

        Args:
            shape: `[C, *window]`.
        """
        if self._window_bytes is None:
            with torch.inference_mode(), self._here():
                window = torch.zeros((1, *shape), device=self.device)
                self._window_bytes = peak_of(self.device, lambda: self.forward(window))
        return self._window_bytes

    @property
    def has_graphs(self) -> bool:
        """Return whether the memory of a batch is taken already."""
        return bool(self._graphs)

    def shrink(self, batch: int) -> None:
        """Take at most so many windows at once from now on, and free the memory of graphs."""
        self._largest_batch = batch
        self._forget_graphs()

    def forward(self, windows: Tensor) -> Tensor:
        """Maps by the uncaptured network, float32."""
        return mirrored(self._maps, self.mirror_axes, num_maps=self.num_maps)(windows)

    def _maps(self, windows: Tensor) -> Tensor:
        logits: Tensor = self.network(windows.to(self.precision)).float()
        self._is_finite.logical_and_(torch.isfinite(logits).all())
        return self._activation(logits)

    def _here(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.device) if self._is_cuda else nullcontext()

    def _load(self) -> None:
        """Put a copy of the weights on the GPU in the current precision, without graphs."""
        self._forget_graphs()
        self.network = copy.deepcopy(self._original).to(self.device, self.precision)
        if self._is_compiled:
            self.network.compile(dynamic=False)
        self._is_finite.fill_(True)

    def _forget_graphs(self) -> None:
        self._graphs: dict[tuple[int, ...], _Graph] = {}
        if self._is_cuda:
            with self._here():
                torch.cuda.empty_cache()
                self._pool = torch.cuda.graph_pool_handle()
                self._stream = torch.cuda.Stream(self.device)

    def _replay(self, windows: Tensor) -> Tensor | None:
        """Maps of a part of the batch; None if it must come in smaller parts."""
        size = min(1 << (len(windows) - 1).bit_length(), self._largest_batch)
        shape = (size, *windows.shape[1:])
        if shape not in self._graphs:
            try:
                self._graphs[shape] = self._capture(shape, windows)
            except RuntimeError as error:
                if size == 1 or not _comes_of_memory(error):
                    raise
                logger.warning("GPU memory has no room for %d windows: %d at once", size, size // 2)
                self.shrink(size // 2)
                return None
        held = self._graphs[shape]
        held.source[: len(windows)].copy_(windows, non_blocking=True)
        held.graph.replay()
        return held.target[: len(windows)]

    def _capture(self, shape: tuple[int, ...], sample: Tensor) -> _Graph:
        source = torch.zeros(shape, device=self.device)
        source[: len(sample)].copy_(sample)
        captured = self._captured(source) if self._is_cuda else self._uncaptured(source)
        self._require_live(captured)
        return captured

    def _captured(self, source: Tensor) -> _Graph:
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self.forward(source)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            target = self.forward(source)
        return _Graph(graph, source, target)

    def _uncaptured(self, source: Tensor) -> _Graph:
        target = self.forward(source)
        return _Graph(_Uncaptured(self, source, target), source, target)

    def _require_live(self, captured: _Graph) -> None:
        """Compare a graph with the uncaptured network on an input that it has not seen.

        Raises:
            ModelError: The graph ignores its input, or answers differently.
        """
        other = captured.source.flip(-1).roll(1, dims=-1) * 0.5 + torch.linspace(
            -1, 1, captured.source.shape[-1], device=self.device
        )
        before = captured.source.clone()
        expected = self.forward(other)
        captured.source.copy_(other)
        captured.graph.replay()
        # Where float16 overflows both are not finite: `fall_back` is the answer to that.
        found, expected = (
            maps[:, : self.num_maps].nan_to_num() for maps in (captured.target, expected)
        )
        difference = float((found - expected).abs().max()) / value_scale(expected)
        captured.source.copy_(before)
        if not difference <= MAX_GRAPH_DIFFERENCE:
            raise ModelError(
                f"the captured graph on {self.device} differs from the network by {difference:.1e} "
                "in its values: use --engine torch, and report the GPU, driver and PyTorch"
            )
