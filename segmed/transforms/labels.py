"""Label values checked, and mapped to class indices and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segmed.errors import ImageError, UsageError
from segmed.metatensor import InvertibleTransform, MetaTensor, Transform
from segmed.one_line import OneLine
from segmed.transforms.grid_step import operation, without_last
from segmed.transforms.intensity import with_voxels
from segmed.transforms.resampling import in_memory_order
from segmed.transforms.taken import taken_image

MAX_LABEL_VALUE = 1 << 16
"""Label values below this are counted, which is quicker than sorting them."""


class KnownLabels(OneLine, Transform):
    """Check that a label map has known values alone, and store it in one byte where that suffices.

    Args:
        values: The label value of each class index, background (0) first; a value of voxels that
            nobody annotated is known too.
    """

    def __init__(self, values: Sequence[int]) -> None:
        self.values = [int(value) for value in values]

    def __call__(self, label: Tensor) -> MetaTensor:
        """Return the label map.

        Args:
            label: Integers `[1, *spatial]`.

        Raises:
            ImageError: It has a value that is not among the known ones (`unknown_label`).
            UsageError: The shape is not that of an image.
        """
        taken = taken_image(label, self)
        voxels = taken.as_tensor()
        high = _highest_known(voxels, self.values)
        return with_voxels(taken, voxels.to(torch.uint8) if high < 256 else voxels)


class ClassIndices(OneLine, InvertibleTransform):
    """Replace label values by class indices; the inverse, of class indices, is exact.

    A value of unannotated voxels is one of `values`, the last: it has an index too.

    Args:
        values: The label value of each class index, background (0) first.
        are_known: `KnownLabels` has checked the map, so that no pass over it is needed for that.

    Raises:
        UsageError: A value occurs twice, or is negative.
    """

    def __init__(self, values: Sequence[int], *, are_known: bool = False) -> None:
        self.values = [int(value) for value in values]
        if len(set(self.values)) < len(self.values) or min(self.values, default=-1) < 0:
            raise UsageError(
                f"label values must be different and not negative, got {self.values}: give that of "
                "each class index, background (0) first"
            )
        self.are_known = are_known

    def __call__(self, label: Tensor) -> MetaTensor:
        """Return class indices of the type that `index_dtype` gives.

        Args:
            label: Label values `[1, *spatial]`.

        Raises:
            ImageError: It has a value that is not among `values` (`unknown_label`).
            UsageError: The shape is not that of an image.
        """
        taken = taken_image(label, self)
        values, voxels = self.values, taken.as_tensor()
        if not self.are_known:
            _highest_known(voxels, values)
        voxels = voxels.long() if voxels.is_floating_point() else voxels
        dtype = index_dtype(len(values))
        if values == list(range(len(values))):
            classes = voxels.to(dtype)
        else:
            index_of = torch.zeros(max(values) + 1, dtype=dtype)
            index_of[values] = torch.arange(len(values), dtype=dtype)
            classes = _looked_up(index_of, voxels)
        done = with_voxels(taken, classes)
        size = tuple(int(n) for n in voxels.shape[1:])
        done.applied_operations.append(operation(self, size, {}))
        return done

    def inverse(self, label: MetaTensor) -> MetaTensor:
        """Return the label values of a map of class indices.

        Args:
            label: Class indices `[1, *spatial]`, with the operations of the map that was replaced.
        """
        bare = without_last(self, label)
        values = torch.tensor(self.values, dtype=torch.int32)
        return with_voxels(bare, values[bare.as_tensor().long()])


def index_dtype(num_classes: int) -> torch.dtype:
    """The smallest type for the class indices of so many classes, background included."""
    if num_classes <= torch.iinfo(torch.uint8).max + 1:
        return torch.uint8
    return torch.int16 if num_classes <= torch.iinfo(torch.int16).max + 1 else torch.int32


def _looked_up(table: Tensor, voxels: Tensor) -> Tensor:
    """The entry of a table for each voxel: one look-up, however many entries."""
    if voxels.is_cpu:  # NumPy needs no copy of the map as int64
        return torch.from_numpy(table.numpy()[voxels.numpy()])
    return table.to(voxels.device)[voxels.long()]


def _highest_known(voxels: Tensor, values: list[int]) -> int:
    """The highest value of a label map; refuses any that are not among `values`."""
    flat = in_memory_order(voxels)[0].flatten()
    low, high = (int(end) for end in torch.aminmax(flat))
    is_integer = not flat.is_floating_point()
    has_no_gaps = is_integer and sorted(values) == list(range(len(values)))
    if low >= 0 and high < len(values) and has_no_gaps:
        return high  # nothing to count
    counts = torch.bincount(flat) if is_integer and low >= 0 and high < MAX_LABEL_VALUE else None
    found = torch.unique(flat) if counts is None else counts.nonzero().flatten()
    if stray := sorted(set(found.tolist()) - set(values)):
        raise ImageError(
            f"the label has values {stray[:5]} that are not labels: known are {values}",
            reason="unknown_label",
        )
    return high
