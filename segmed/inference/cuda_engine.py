"""CUDA inference: 16-bit arithmetic, one captured graph a batch size.

A graph is captured on the engine's own device and stream, compared with the uncaptured network on
another input before it is used, and owns the weights that it refers to. Activations beyond the
range of float16 are noticed on the device, see `CudaEngine.fall_back`.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from segmed.errors import ModelError

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Passes on a side stream before a graph is captured, as PyTorch requires."""

MAX_GRAPH_DIFFERENCE = 1e-2
"""Largest difference of a probability between a graph and the uncaptured network (both 16-bit)."""

BATCH_VOXELS = 2**23
"""Voxels of a full batch of windows: a window of 128 cubed takes 15 ms alone, 11 in twos, 9 in
fours (full-width U-Net, H200)."""


@dataclass(frozen=True)
class _Graph:
    """A captured pass with its fixed input and output."""

    graph: torch.cuda.CUDAGraph
    source: Tensor
    target: Tensor


class CudaEngine:
    """One network on a GPU in float16, in float32 after an overflow.

    Not safe for several threads at once: input and output of a graph are fixed buffers. `Predictor`
    uses a lock around each image.

    Args:
        network: The network; it is copied, so that the weights that graphs use are never moved.
        device: The GPU, with or without an index.
        compiled: Compile the network by `torch.compile` first; takes about a minute.
    """

    def __init__(self, network: nn.Module, device: torch.device, *, compiled: bool = False) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.name = "cuda-compile" if compiled else "cuda"
        self.device = torch.device("cuda", index)
        self.precision = torch.float16
        self._original = copy.deepcopy(network).eval()
        self._is_compiled = compiled
        self._largest_batch = 2**30
        with torch.cuda.device(self.device):
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # PyTorch's own
            self._is_finite = torch.ones((), dtype=torch.bool, device=self.device)
        self._load()

    def __call__(self, windows: Tensor) -> Tensor:
        """Class probabilities `[B, K, *window]`, float32, on the GPU; valid until the next call."""
        with torch.inference_mode(), torch.cuda.device(self.device):
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

    def _load(self) -> None:
        """Put a copy of the weights on the GPU in the current precision, without graphs."""
        self._graphs: dict[tuple[int, ...], _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self.network = copy.deepcopy(self._original).to(self.device, self.precision)
        if self._is_compiled:
            self.network.compile(dynamic=False)
        self._is_finite.fill_(True)

    def _replay(self, windows: Tensor) -> Tensor | None:
        """Maps of a part of the batch; None if it must come in smaller parts."""
        size = min(1 << (len(windows) - 1).bit_length(), self._largest_batch)
        shape = (size, *windows.shape[1:])
        if shape not in self._graphs:
            try:
                self._graphs[shape] = self._capture(shape, windows)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if size == 1:
                    raise
                self._largest_batch = size // 2
                logger.warning("GPU memory has no room for %d windows: %d at once", size, size // 2)
                return None
        held = self._graphs[shape]
        held.source[: len(windows)].copy_(windows, non_blocking=True)
        held.graph.replay()
        return held.target[: len(windows)]

    def _forward(self, windows: Tensor) -> Tensor:
        logits: Tensor = self.network(windows.to(self.precision)).float()
        self._is_finite.logical_and_(torch.isfinite(logits).all())
        return torch.softmax(logits, dim=1)

    def _capture(self, shape: tuple[int, ...], sample: Tensor) -> _Graph:
        source = torch.zeros(shape, device=self.device)
        source[: len(sample)].copy_(sample)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self._forward(source)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            target = self._forward(source)
        captured = _Graph(graph, source, target)
        self._require_live(captured)
        return captured

    def _require_live(self, captured: _Graph) -> None:
        """Compare a graph with the uncaptured network on an input that it has not seen.

        Raises:
            ModelError: The graph ignores its input, or answers differently.
        """
        other = captured.source.flip(-1).roll(1, dims=-1) * 0.5 + torch.linspace(
            -1, 1, captured.source.shape[-1], device=self.device
        )
        before = captured.source.clone()
        expected = self._forward(other)
        captured.source.copy_(other)
        captured.graph.replay()
        difference = float((captured.target - expected).abs().max())
        captured.source.copy_(before)
        if not difference <= MAX_GRAPH_DIFFERENCE:
            raise ModelError(
                f"the captured graph on {self.device} differs from the network by {difference:.1e} "
                "in a probability: use --engine torch, and report the GPU, driver and PyTorch"
            )


def cuda_batch(window: tuple[int, ...]) -> int:
    """Windows in a full batch on a GPU."""
    return max(1, BATCH_VOXELS // prod(window))
