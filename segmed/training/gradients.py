"""Gradients of a step averaged over the processes, by one collective."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segmed.training.distributed import ProcessGroup

LOSS, PROGRESS, STOPS = range(3)
"""Places of the numbers behind the gradients."""


class SharedGradients:
    """One buffer for the gradients of all weights, running statistics, and a few numbers.

    The numbers are the loss, the leading process's share of the budget spent, and the wish of a
    process to stop. On a CPU they travel with the gradients. On a GPU the loss does; the other two
    go from host to host, so that no step waits for the device.

    Args:
        network: Its weights are equal in all processes, and so remain.
        process_group: The processes.
    """

    def __init__(self, network: nn.Module, process_group: ProcessGroup) -> None:
        self._group = process_group
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._statistics = [b for b in network.buffers() if b.is_floating_point()]
        tensors: list[Tensor] = [*self._parameters, *self._statistics]
        sizes = [tensor.numel() for tensor in tensors]
        self._flat = torch.zeros(sum(sizes) + 3, device=self._parameters[0].device)
        *parts, self._numbers = torch.split(self._flat, [*sizes, 3])
        self._values = self._flat[: sum(sizes)]
        self._views = [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
        self._said = torch.zeros(3)

    def say(self, *, progress: float, stops: bool) -> None:
        """State this process's numbers before a step.

        Args:
            progress: Share of the budget spent; only the leading process's counts.
            stops: Whether this process was asked to stop.
        """
        self._said[PROGRESS] = progress if self._group.leads else 0.0
        self._said[STOPS] = float(stops)
        if not self._flat.is_cuda:
            self._numbers.copy_(self._said)

    def heard(self) -> tuple[float, bool]:
        """The leading process's progress, and whether any process stops; after a step."""
        numbers = self._group.total(self._said) if self._flat.is_cuda else self._numbers
        return float(numbers[PROGRESS]), float(numbers[STOPS]) > 0

    @torch.no_grad()
    def average(self, loss: Tensor) -> Tensor:
        """Average gradients and running statistics in place.

        A weight that has no gradient in this process counts as one with a gradient of zero.

        Args:
            loss: This process's loss, a scalar.

        Returns:
            The mean loss.
        """
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        present = [p.grad for p in self._parameters if p.grad is not None] + self._statistics
        torch._foreach_copy_(self._views, present)
        self._numbers[LOSS] = loss.detach()
        self._group.add_up(self._flat)
        self._values.div_(self._group.size)
        torch._foreach_copy_(present, self._views)
        mean: Tensor = self._numbers[LOSS] / self._group.size
        return mean
