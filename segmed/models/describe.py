"""Parameters, operations and receptive field of a network, without running it.

Everything is counted on PyTorch's `meta` device, where tensors have shapes and no values; the
receptive field is measured on a linear copy of one feature a level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from segmed.models.blocks import CONV_TYPES, DECONV_TYPES
from segmed.models.options import Axes
from segmed.models.registry import architecture, build_model, resolve_options

DEFAULT_SIZE: dict[int, int] = {2: 512, 3: 128}
"""Default side of the input for which costs are given."""

LARGEST_PROBE = 1024
"""A receptive field beyond this is reported as the whole image."""


@dataclass(frozen=True)
class ModelCard:
    """Facts about one network.

    Attributes:
        name: Of the architecture.
        reference: Authors and year.
        preset: `paper`, or None for the planned form.
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        num_classes: Classes of the logits.
        parameters: Trainable parameters.
        input_size: Input size of the following numbers, per axis.
        macs: Multiply-accumulate operations of all convolutions, one image.
        activation_bytes: What training keeps of one image for the backward pass, in float32.
        level_strides: Distance of a level's voxels on the input grid, per level and axis.
        output_stride: That of the coarsest level.
        receptive_field: Voxels per axis that one logit in the middle can see; None for all.
    """

    name: str
    reference: str
    preset: str | None
    spatial_dims: int
    in_channels: int
    num_classes: int
    parameters: int
    input_size: Axes
    macs: int
    activation_bytes: int
    level_strides: tuple[Axes, ...]
    output_stride: Axes
    receptive_field: tuple[int | None, ...]

    @property
    def num_levels(self) -> int:
        """Levels of resolution."""
        return len(self.level_strides)


def describe_model(
    name: str,
    *,
    spatial_dims: int,
    in_channels: int,
    num_classes: int,
    preset: str | None = None,
    input_size: Sequence[int] | None = None,
    **options: Any,
) -> ModelCard:
    """Parameters, operations, memory, levels and receptive field of a network.

    Args:
        name: One of `list_models()`.
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        num_classes: Classes of the logits.
        preset: As for `build_model`.
        input_size: Size per axis for which costs are given; 512² or 128³ if not given, and 572² or
            236³ for the valid U-Net.
        options: As for `build_model`.

    Returns:
        The card.

    Raises:
        UsageError: The name or an option is unknown.
        ModelError: The options contradict each other, or the network cannot take the size.
    """
    entry = architecture(name)
    task: dict[str, Any] = {
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "num_classes": num_classes,
        "preset": preset,
    }
    with torch.device("meta"):
        network = build_model(name, **task, **options)
    if input_size is None:
        is_valid = getattr(network.options, "padding", "same") == "valid"
        side = {2: 572, 3: 236}[spatial_dims] if is_valid else DEFAULT_SIZE[spatial_dims]
        input_size = (side,) * spatial_dims
    strides: tuple[Axes, ...] = network.level_strides  # type: ignore[assignment]  # every network of ours has it
    shape = (1, in_channels, *input_size)
    return ModelCard(
        name=name,
        reference=entry.reference,
        preset=preset,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        num_classes=num_classes,
        parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
        input_size=tuple(input_size),
        macs=count_macs(network, shape),
        activation_bytes=count_activations(network, shape),
        level_strides=strides,
        output_stride=strides[-1],
        receptive_field=(None,) * spatial_dims
        if getattr(network, "pools_whole_image", False)
        else measure_receptive_field(name, strides, preset=preset, options=options),
    )


def count_macs(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulate operations of the convolutions of one forward pass.

    Args:
        network: On the `meta` device; put into eval mode.
        shape: Of the input, `[B, C, *spatial]`.

    Returns:
        The number for the whole batch.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, CONV_TYPES):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, DECONV_TYPES):
            total += inputs[0].numel() * module.weight[0].numel()

    convs = [m for m in network.modules() if isinstance(m, (*CONV_TYPES, *DECONV_TYPES))]
    hooks = [module.register_forward_hook(count) for module in convs]
    with torch.no_grad():
        network.eval()(torch.empty(tuple(shape), device="meta"))
    for hook in hooks:
        hook.remove()
    return total


def count_activations(network: nn.Module, shape: Sequence[int]) -> int:
    """Bytes that one forward pass in training keeps for the backward pass.

    Args:
        network: On the `meta` device; put into training mode.
        shape: Of the input, `[B, C, *spatial]`.

    Returns:
        Bytes of distinct tensors, parameters excluded.
    """
    known = {id(parameter) for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(torch.empty(tuple(shape), device="meta"))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def measure_receptive_field(
    name: str, strides: Sequence[Axes], *, preset: str | None, options: Mapping[str, Any]
) -> tuple[int | None, ...]:
    """Voxels along each axis that a logit in the middle depends on.

    Args:
        name: Of the architecture.
        strides: Of the levels, per axis.
        preset: As for `build_model`.
        options: As for `build_model`.

    Returns:
        The extent per axis; None where it is the whole image.
    """
    chosen = {**resolve_options(name, preset=preset, spatial_dims=len(strides[0])), **options}
    flat = _in_two_axes(chosen)
    dims = len(strides[0]) if flat is None else 2
    probe = _linear_copy(name, dims, chosen if flat is None else flat, len(strides))
    extents: list[int | None] = []
    for axis in range(dims if flat is None else 1):
        side, extent = 256, None
        while extent is None and side <= LARGEST_PROBE:
            size = [2 * step for step in strides[-1][:dims]]
            size[axis] = side
            extent = _extent(probe, (1, 1, *size), axis)
            side *= 2
        extents.append(extent)
    return tuple(extents) if flat is None else tuple(extents * len(strides[0]))


def _in_two_axes(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same options for two axes; None where the axes differ."""
    flat = dict(options)
    for option in ("strides", "kernels", "atrous_rates"):
        if flat.get(option):
            entries = [(e,) if isinstance(e, int) else tuple(e) for e in flat[option]]
            if any(len(set(entry)) > 1 for entry in entries):
                return None
            flat[option] = [entry[0] for entry in entries]
    for option in ("patch_size", "spacing_mm"):
        if flat.get(option):
            if len(set(flat[option])) > 1:
                return None
            flat[option] = flat[option][:2]
    if isinstance(flat.get("head_kernel"), Sequence):
        return None
    return flat


def _extent(probe: nn.Module, shape: tuple[int, ...], axis: int) -> int | None:
    image = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    logits = probe(image)
    middle = tuple(n // 2 for n in logits.shape[2:])
    logits[(0, 0, *middle)].backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0).movedim(axis, 0).flatten(1).sum(1).nonzero()
    first, last = int(seen.min()), int(seen.max())
    return None if first == 0 or last == shape[2 + axis] - 1 else last - first + 1


def _linear_copy(
    name: str, spatial_dims: int, options: Mapping[str, Any], num_levels: int
) -> nn.Module:
    """The same wiring with one feature everywhere, averages for maxima, and no norm."""
    narrow: dict[str, Any] = {
        "norm": None,
        "activation": "relu",
        "dropout": 0.0,
        "cat_channels": 1,
        "head_width": 1,
        "width_factor": 1e-6,
        "aspp_width": 1,
        "low_level_width": 1,
        "deep_supervision": False,
        "cgm": False,
        "zero_scores": False,
    }
    if options.get("backbone", "planned") == "planned":
        narrow["widths"] = (1,) * num_levels
    if name == "unet":
        narrow["padding"] = "same"
    known = {field.name for field in fields(architecture(name).options)}  # type: ignore[arg-type]  # every options class is a dataclass
    usable = {option: value for option, value in narrow.items() if option in known}
    copy = build_model(
        name,
        spatial_dims=spatial_dims,
        in_channels=1,
        num_classes=1,
        **{**options, **usable},
    )
    copy = copy.double().eval()
    for module in copy.modules():
        if isinstance(module, (*CONV_TYPES, *DECONV_TYPES)):
            module.weight.data.fill_(1.0 / math.prod(module.weight.shape[1:]))
    _average_pools(copy)
    return copy


def _average_pools(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for label, child in list(parent.named_children()):
            if isinstance(child, nn.MaxPool2d | nn.MaxPool3d):
                flat = isinstance(child, nn.MaxPool2d)  # a subclass pools over the same windows
                kind: Callable[..., nn.Module] = nn.AvgPool2d if flat else nn.AvgPool3d
                average = kind(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(parent, label, average)
