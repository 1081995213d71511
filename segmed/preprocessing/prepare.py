"""From images and labels as stored to what a network is fed with."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from segmed.errors import ImageError
from segmed.geometry import require_same_grid
from segmed.io import grid_of
from segmed.metatensor import MetaTensor
from segmed.plan.schema import Plan
from segmed.preprocessing.grid_transform import GridTransform, Prepared, resampled, turned
from segmed.preprocessing.intensity import correct_bias, scaling_of
from segmed.preprocessing.resampling import in_memory_order, resample, resampled_view
from segmed.preprocessing.room import preparation_bytes, require_room

MAX_LABEL_VALUE = 1 << 16
"""Label values below this are counted, which is quicker than sorting them."""


def class_values(plan: Plan) -> list[int]:
    """The label value of each class index, background (0) first."""
    return list(plan.encoding.values)


def prepare(image: MetaTensor, plan: Plan) -> Prepared:
    """An image turned, cropped, scaled and resampled according to the plan.

    The order is: bias correction, turning, cropping, intensity, resampling. Images that already
    have the target's spacing are not interpolated at all.

    Args:
        image: `[C, *spatial]` in storage order, with its RAS+ affine.
        plan: The plan of the training set.

    Raises:
        ImageError: The image has another number of channels than the plan, or needs more memory
            than is free (`out_of_memory`).
        GeometryError: It has another number of axes, an affine without directions, or a spacing
            that gives it a size out of all bounds on the target grid.
    """
    rules = plan.preprocessing
    require_channels(image, plan)
    voxels = image.as_tensor().to(torch.float32)
    if rules.bias_correction:
        voxels = torch.stack(
            [
                channel if about.modality == "CT" else correct_bias(channel)
                for channel, about in zip(voxels, plan.channels, strict=True)
            ]
        )
    transform = turned(grid_of(image), rules.orientation)
    if rules.crop_nonzero:
        transform = _cropped(transform, voxels)
    transform = resampled(transform, rules.spacing_mm)
    target = " x ".join(map(str, transform.shape))
    require_room(preparation_bytes(transform, plan), f"the image, resampled to {target} voxels,")
    orders = [
        1 if axis == rules.anisotropic_axis else rules.image_order
        for axis in range(len(transform.axes))
    ]
    seen = _turned_crop(voxels, transform)
    tensor = torch.empty((plan.in_channels, *transform.shape))
    for number, rule in enumerate(rules.intensity):
        channel = seen[number : number + 1]
        scaling = scaling_of(channel, rule)
        channel = resampled_view(
            scaling.before(channel), transform.shape, order=orders, flips=transform.flips
        )
        tensor[number] = channel[0]
        scaling.after(tensor[number])  # in place, and never on the image's own memory
    return Prepared(tensor, transform)


def require_channels(image: MetaTensor, plan: Plan) -> None:
    """Refuse an image with other channels than the plan's.

    Raises:
        ImageError: `channels`.
    """
    if image.shape[0] != plan.in_channels:
        raise ImageError(
            f"the image has {image.shape[0]} channels, the plan {plan.in_channels} "
            f"({', '.join(channel.name for channel in plan.channels)}): give one a channel",
            reason="channels",
        )


def prepare_label(label: MetaTensor, prepared_like: Prepared, plan: Plan) -> Tensor:
    """A label map as class indices on the grid of a prepared image, by nearest neighbour.

    Args:
        label: `[1, *spatial]` integers on the grid of the image as stored.
        prepared_like: The image as `prepare` gave it.
        plan: The plan of the training set.

    Returns:
        `[*target]` of the type that `index_dtype` gives: the class indices of the plan's encoding,
        0 for background, 1, 2, ... in the order of `plan.labels`, then that of voxels that nobody
        annotated; no new values arise.

    Raises:
        GeometryError: The label is on another grid than the image.
        ImageError: It has a value that is not a label of the plan.
    """
    transform = prepared_like.transform
    require_same_grid(transform.grid_in, grid_of(label), names=("the image", "the label"))
    values = list(plan.encoding.stored_values)
    voxels = label.as_tensor()
    _, high = _require_known(voxels, values)
    small = voxels.to(torch.uint8) if high < 256 else voxels  # moves fewer bytes
    turned_label = _turned_crop(small, transform)
    nearest = resample(turned_label, transform.shape, order=0, flips=transform.flips)[0]
    if values == list(range(len(values))):
        return nearest.to(index_dtype(len(values)))
    index_of = torch.zeros(max(values) + 1, dtype=index_dtype(len(values)))
    index_of[values] = torch.arange(len(values), dtype=index_of.dtype)
    # One look-up a voxel, however many classes; NumPy's needs no copy of the map as int64.
    return torch.from_numpy(index_of.numpy()[nearest.numpy()])


def index_dtype(num_classes: int) -> torch.dtype:
    """The smallest type for the class indices of so many classes, background included."""
    if num_classes <= torch.iinfo(torch.uint8).max + 1:
        return torch.uint8
    return torch.int16 if num_classes <= torch.iinfo(torch.int16).max + 1 else torch.int32


def _require_known(voxels: Tensor, values: list[int]) -> tuple[int, int]:
    """The ends of a label map's values; refuses any that are not among `values`."""
    flat = in_memory_order(voxels)[0].flatten()
    low, high = (int(end) for end in torch.aminmax(flat))
    if low >= 0 and high < len(values) and sorted(values) == list(range(len(values))):
        return low, high  # no gaps, no strays: nothing to count
    counts = torch.bincount(flat) if low >= 0 and high < MAX_LABEL_VALUE else None
    found = torch.unique(flat) if counts is None else counts.nonzero().flatten()
    if stray := sorted(set(found.tolist()) - set(values)):
        raise ImageError(
            f"the label has values {stray[:5]} that are no labels: known are {values}",
            reason="unknown_label",
        )
    return low, high


def _turned_crop(voxels: Tensor, transform: GridTransform) -> Tensor:
    """The box of the image with its axes in the target's order, not yet mirrored: a view."""
    view = voxels.permute(0, *(axis + 1 for axis in transform.axes))
    for turned_axis in range(len(transform.axes)):
        start, stop = transform.kept(turned_axis)
        view = view.narrow(turned_axis + 1, start, stop - start)
    return view


def _cropped(transform: GridTransform, voxels: Tensor) -> GridTransform:
    """The transform cut to the bounding box of voxels that are not 0 in some channel.

    An image of zeros alone is kept whole.
    """
    filled = (voxels != 0).any(dim=0)
    if not bool(filled.any()):
        return transform
    box = []
    for turned_axis, axis in enumerate(transform.axes):
        others = [other for other in range(filled.ndim) if other != axis]
        used = torch.nonzero(filled.amax(dim=others)).flatten()
        start, stop = int(used[0]), int(used[-1]) + 1
        if transform.flips[turned_axis]:
            size = filled.shape[axis]
            start, stop = size - stop, size - start
        box.append((start, stop))
    return dataclasses.replace(transform, box=tuple(box))
