"""Networks of registered architectures, padded, cropped and checked like the built-in ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from segmed.architectures import RegisteredArchitecture
from segmed.errors import ModelError
from segmed.models.options import Task, per_axis
from segmed.models.resize import crop_to, pad_to_multiple


class RegisteredNetwork(nn.Module):
    """A user's network with the contract of the built-in ones.

    Args:
        name: Name of its architecture.
        network: The network as its builder made it.
        task: Channels, classes and dimensions.
        multiple: Sizes that the network takes are multiples of this, per axis.
    """

    def __init__(
        self, name: str, network: nn.Module, task: Task, multiple: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.name = name
        self.task = task
        self.multiple = multiple
        self.network = network

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits `[B, K, *spatial]`; in training a list of them where the network gives several.

        Raises:
            ModelError: The image has other channels or axes, or the network returns something else
                than logits on the grid of its input.
        """
        wanted = (self.task.in_channels, self.task.spatial_dims)
        if (image.shape[1], image.ndim - 2) != wanted:
            raise ModelError(
                f"{self.name} takes {wanted[0]} channels in {wanted[1]}D, "
                f"got shape {tuple(image.shape)}"
            )
        size = tuple(image.shape[2:])
        padded = pad_to_multiple(image, self.multiple)
        found = self.network(padded)
        if isinstance(found, Tensor):
            return crop_to(self._checked(found, padded), size)
        heads = [crop_to(self._checked(head, padded), size) for head in self._heads(found)]
        return heads if self.training and len(heads) > 1 else heads[0]

    def _heads(self, found: object) -> list[object]:
        if not isinstance(found, list | tuple) or not found:
            raise ModelError(
                f"{self.name} must return a tensor of logits, or in training a list of them; "
                f"got {type(found).__name__}"
            )
        if not self.training and len(found) > 1:
            raise ModelError(
                f"{self.name} returns {len(found)} outputs in evaluation; return the logits alone"
            )
        return list(found)

    def _checked(self, logits: object, image: Tensor) -> Tensor:
        shape = (image.shape[0], self.task.num_classes, *image.shape[2:])
        if not isinstance(logits, Tensor) or tuple(logits.shape) != shape:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"{self.name} returns {got} for an input of {tuple(image.shape)}; logits must have "
                f"shape {shape} (if sizes must be multiples of n, register with size_multiple=n)"
            )
        return logits


def build_registered(
    entry: RegisteredArchitecture, task: Task, options: Mapping[str, Any]
) -> RegisteredNetwork:
    """Build the network of a registered architecture.

    Args:
        entry: The registration.
        task: Channels, classes and dimensions.
        options: Keyword options of its builder.

    Raises:
        ModelError: The builder does not support the task or the options.
    """
    if task.spatial_dims not in entry.spatial_dims:
        raise ModelError(
            f"{entry.name} is registered for {' and '.join(f'{n}D' for n in entry.spatial_dims)}, "
            f"not for {task.spatial_dims}D"
        )
    try:
        network = entry.build(
            spatial_dims=task.spatial_dims,
            in_channels=task.in_channels,
            num_classes=task.num_classes,
            **options,
        )
    except (TypeError, ValueError, ImportError) as error:
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"{entry.name} cannot be built with options {options}: {text}") from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"build of {entry.name} must return a torch.nn.Module, got {type(network).__name__}"
        )
    multiple = per_axis("size_multiple", entry.size_multiple, task.spatial_dims)
    return RegisteredNetwork(entry.name, network, task, multiple)
