"""CUDA: 16-bit arithmetic and a captured graph, so that launching kernels costs nothing.

Written against PyTorch's documentation; the project's own machines have no GPU, so the tests marked
`gpu` must pass on yours before you rely on it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Runs on a side stream before a graph is captured, as PyTorch asks for."""


class CudaEngine:
    """One network on a GPU: bfloat16 where it is native, else float16; one graph a window shape.

    Args:
        network: The network.
        device: The GPU.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.name = "cuda"
        self.device = device
        self.network = network.to(device).eval()
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
        self.precision = torch.bfloat16 if is_native else torch.float16
        self._graphs: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, windows: Tensor) -> Tensor:
        """Class probabilities `[B, K, *window]` on the GPU; valid until the next call."""
        with torch.inference_mode():
            shape = tuple(windows.shape)
            if shape not in self._graphs:
                self._graphs[shape] = self._capture(windows)
            graph, source, target = self._graphs[shape]
            source.copy_(windows, non_blocking=True)
            graph.replay()
            return target

    def _forward(self, windows: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=self.precision):
            logits: Tensor = self.network(windows)
        return torch.softmax(logits.float(), dim=1)

    def _capture(self, windows: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        source = windows.to(self.device).clone()
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # PyTorch's own
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._forward(source)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            target = self._forward(source)
        return graph, source, target
