"""Memory of one training step, from a pass that computes shapes only.

Forward pass, loss and backward pass run on PyTorch's `meta` device, where tensors have shapes and
no values. Every tensor is counted from its making to its release, so the largest sum is that of a
real step: the activations that the backward pass keeps, the tensors of the loss for each class and
head, and gradients. The constants for what an allocator and a library add are measured.
"""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segmed.architectures import BUILT_IN
from segmed.losses import make_loss
from segmed.losses.softmax_sums import meta_as
from segmed.models import build_model
from segmed.models.recompute import recomputing_in
from segmed.plan.resources import DeviceKind

OVERHEAD: dict[DeviceKind, float] = {"cpu": 1.2, "cuda": 1.13}
"""Memory that a process takes over what tensors need. CPU: copies that oneDNN makes and gaps of the
allocator (resident memory of eleven networks: 0.97 to 1.37 times that of the tensors). GPU:
workspaces of cuDNN (U-Net, two patches of 128 cubed, bfloat16, H200: 10.84 GB, tensors 9.6 GB)."""

MOMENTS = 2
"""Moments that AdamW keeps of each weight; SGD keeps one."""

REPLACED_LOSS = "dice_ce"
"""Measured in place of a loss that computes with values, such as one with a map of distances."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its input and its loss, as a plan has them.

    Attributes:
        architecture: Model name.
        options: Its build options.
        loss: Name of its loss.
        in_channels: Channels of the image.
        num_classes: Classes of the logits.
        patch_size: Voxels of a patch along each axis.
    """

    architecture: str
    options: Mapping[str, Any]
    loss: str
    in_channels: int
    num_classes: int
    patch_size: tuple[int, ...]


def step_bytes(
    trained: TrainedNetwork,
    *,
    batch_size: int,
    device: DeviceKind,
    is_half: bool,
    is_averaged: bool = False,
) -> int:
    """Memory of one training step.

    Args:
        trained: The network, its input and its loss.
        batch_size: Patches a step on one device.
        device: Kind of the device.
        is_half: Whether the forward pass runs under autocast to 16 bits.
        is_averaged: Whether averaged weights are kept.

    Returns:
        Bytes for weights, optimiser, activations, loss and gradients.
    """
    measure = _measured if trained.architecture in BUILT_IN else _measured.__wrapped__
    weights, passes = measure(
        trained.architecture,
        json.dumps(trained.options, sort_keys=True),
        trained.loss,
        (batch_size, trained.in_channels, *trained.patch_size),
        trained.num_classes,
        is_half,
        device,
    )
    copies = 1 + MOMENTS + is_averaged
    copies += device == "cuda"  # a copy for the time of the capture of a graph
    return int(OVERHEAD[device] * (copies * weights + passes))


@lru_cache(maxsize=512)
def _measured(
    architecture: str,
    options: str,
    loss: str,
    shape: tuple[int, ...],
    num_classes: int,
    is_half: bool,
    device: DeviceKind,
) -> tuple[int, int]:
    """Bytes of the weights, and the most that the passes of one step need beside them."""

    def build() -> nn.Module:
        return build_model(
            architecture,
            spatial_dims=len(shape) - 2,
            in_channels=shape[1],
            num_classes=num_classes,
            **json.loads(options),
        )

    if architecture in BUILT_IN:
        with torch.device("meta"):
            network = build()
        measure = _passes_bytes
    else:
        network = build()
        measure = _registered_bytes
    with meta_as(device):
        passes = measure(network, loss, shape, num_classes, is_half=is_half)
    return sum(parameter.nbytes for parameter in network.parameters()), passes


def _passes_bytes(
    network: nn.Module, loss: str, shape: Sequence[int], num_classes: int, *, is_half: bool
) -> int:
    """Most bytes of tensors at once in forward pass, loss and backward pass, weights excluded."""
    with LiveBytes() as memory, recomputing_in(partial(_casting, is_half=is_half)):
        image = torch.empty(tuple(shape), device="meta")
        label = torch.empty((shape[0], *shape[2:]), device="meta", dtype=torch.long)
        with _casting(is_half=is_half):
            logits = network.train()(image)
        with _casting(is_half=is_half):
            value = _loss_of(logits, label, loss, num_classes)
        del logits
        value.backward()
    return int(memory.most)


def _loss_of(logits: Any, label: Tensor, loss: str, num_classes: int) -> Tensor:
    try:
        value: Tensor = make_loss(loss, num_classes=num_classes)(logits, label)
    except RuntimeError:  # it computes with values
        value = make_loss(REPLACED_LOSS, num_classes=num_classes)(logits, label)
    return value


def _registered_bytes(
    network: nn.Module, loss: str, shape: Sequence[int], num_classes: int, *, is_half: bool
) -> int:
    """The same of a user's network, which may compute with values.

    It is built with values and measured without them where it can be; else by a pass over one
    patch, whose maps are kept for the backward pass and have gradients as large.
    """
    on_meta = copy.deepcopy(network).to("meta")
    try:
        return _passes_bytes(on_meta, loss, shape, num_classes, is_half=is_half)
    except (RuntimeError, TypeError):  # its forward pass reads values
        with torch.no_grad():
            maps = shape[0] * _maps_bytes(network, torch.zeros(1, *shape[1:]))
    head = torch.empty((shape[0], num_classes, *shape[2:]), device="meta", requires_grad=True)
    label = torch.empty((shape[0], *shape[2:]), device="meta", dtype=torch.long)
    with LiveBytes() as memory:
        _loss_of(head, label, loss, num_classes).backward()
    return 2 * maps + int(memory.most)


def _maps_bytes(network: nn.Module, patch: Tensor) -> int:
    total = 0

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        tensors: Sequence[object] = output if isinstance(output, list | tuple) else [output]
        total += sum(item.nbytes for item in tensors if isinstance(item, Tensor))

    leaves = [module for module in network.modules() if not list(module.children())]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        network.train()(patch)
    finally:
        for handle in handles:
            handle.remove()
    return total


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made within a block, while they exist.

    Attributes:
        now: Bytes of the tensors that exist.
        most: Largest value of `now`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's own
        self.now = self.most = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation and count the memory of its results."""
        results = QUICK.get(func, func)(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._count(result.untyped_storage())
        return results

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._counted:
            return
        self._counted.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size


def _group_norm(image: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes of a group norm: its result, and mean and deviation of each group."""
    batch, groups = others[2], others[5]
    moments = torch.empty((2, batch, groups), device="meta")
    return torch.empty_like(image), moments[0], moments[1]


def _group_norm_backward(gradient: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes of its gradients: of the image, the scale and the shift."""
    channels = others[5]
    return (
        torch.empty_like(gradient),
        torch.empty(channels, device="meta"),
        torch.empty(channels, device="meta"),
    )


QUICK: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.native_group_norm.default: _group_norm,
    torch.ops.aten.native_group_norm_backward.default: _group_norm_backward,
}
"""Operations whose shapes PyTorch finds slowly, in Python: two thirds of the time of a pass."""


def _casting(*, is_half: bool) -> AbstractContextManager[object]:
    return _CastShapes() if is_half else nullcontext()


class _CastShapes(TorchFunctionMode):
    """Casts as autocast does on a GPU: `meta` tensors have no autocast of their own.

    Convolutions run in 16 bits; group norm, which is also our instance norm, in 32. All else takes
    what comes. Losses go to 32 bits by themselves.
    """

    LOW = frozenset(
        {
            torch.conv2d,
            torch.conv3d,
            torch.conv_transpose2d,
            torch.conv_transpose3d,
            torch.matmul,
            nn.functional.linear,
        }
    )
    HIGH = frozenset({nn.functional.group_norm, nn.functional.layer_norm})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one function on inputs of the precision that autocast gives it."""
        if func in self.LOW:
            args = tuple(_cast(value, torch.bfloat16) for value in args)
        elif func in self.HIGH:
            args = tuple(_cast(value, torch.float32) for value in args)
            kwargs = {name: _cast(value, torch.float32) for name, value in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
