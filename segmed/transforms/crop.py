"""Crop of an image to a box of voxels, or to its non-zero voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from segmed.doors import checked
from segmed.errors import UsageError
from segmed.metatensor import MetaTensor
from segmed.transforms.grid_step import GridStep, Placement, placed_back
from segmed.transforms.grid_transform import GridTransform, cut
from segmed.transforms.taken import taken_image

Box = tuple[tuple[int, int], ...]


class CropBox(GridStep):
    """Cut a box out of an image: a view, nothing is copied.

    The inverse puts a map back into zeros.

    Args:
        box: First and last-plus-one voxel along each axis.
        lazy: Refused; see `GridStep`.

    Raises:
        UsageError: `lazy` is set, or the box is empty along an axis or begins before the image.
    """

    @checked()
    def __init__(self, box: Box, *, lazy: bool = False) -> None:
        super().__init__(lazy=lazy)
        self.box = tuple((int(start), int(stop)) for start, stop in box)
        if any(not 0 <= start < stop for start, stop in self.box):
            raise UsageError(
                f"box must be first and last-plus-one voxel along each axis, got {self.box}"
            )

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return the box of an image.

        Args:
            image: `[C, *spatial]`.

        Raises:
            UsageError: The box ends outside of the image or has another number of axes, the shape
                is not that of an image, or operations of MONAI are pending.
        """
        return self.cropped(image, self.box)

    def cropped(self, image: Tensor, box: Box) -> MetaTensor:
        """Return a box of an image, recorded as this transform's."""
        taken, place = self.begun(image)
        voxels = taken.as_tensor()
        size = tuple(int(edge) for edge in voxels.shape[1:])
        if len(box) != len(size) or any(b[1] > edge for b, edge in zip(box, size, strict=True)):
            raise UsageError(f"the box {box} does not fit into an image of {size} voxels")
        for axis, (start, stop) in enumerate(box):
            voxels = voxels.narrow(axis + 1, start, stop - start)
        return self.recorded(taken, voxels, Placement(cut(place.transform, box), place.unmirrored))

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Return a map on the grid before the crop; it is 0 outside of the box.

        Args:
            image: `[K, *box]`, with the operations of the image that was cropped.
        """
        bare, after, before = self.taken_back(image)
        voxels = bare.as_tensor()
        part = whole = voxels.new_zeros((len(voxels), *before.transform.shape))
        for axis, (start, stop) in enumerate(_box_within(before.transform, after.transform)):
            part = part.narrow(axis + 1, start, stop - start)
        part.copy_(voxels)
        return placed_back(bare, whole, before)


class CropNonzero(CropBox):
    """Crop an image to the bounding box of the voxels that are not 0 in some channel.

    An image of zeros alone is kept whole. The inverse puts a map back into zeros.

    Args:
        lazy: Refused; see `GridStep`.

    Raises:
        UsageError: `lazy` is set.
    """

    def __init__(self, *, lazy: bool = False) -> None:
        super().__init__((), lazy=lazy)

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return the box of an image.

        Args:
            image: `[C, *spatial]`.

        Raises:
            UsageError: The shape is not that of an image, or operations of MONAI are pending.
        """
        return self.cropped(image, nonzero_box(taken_image(image, self)))


def nonzero_box(image: Tensor) -> Box:
    """Return the bounding box of the voxels that are not 0 in some channel; the whole of zeros.

    Args:
        image: `[C, *spatial]`.
    """
    voxels = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
    filled = (voxels != 0).any(dim=0)
    if not bool(filled.any()):
        return tuple((0, int(size)) for size in filled.shape)
    box = []
    for axis in range(filled.ndim):
        others = [other for other in range(filled.ndim) if other != axis]
        used = torch.nonzero(filled.amax(dim=others)).flatten()
        box.append((int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def _box_within(before: GridTransform, after: GridTransform) -> Box:
    """Return the box of a crop, in voxels of the grid before it."""
    return tuple(
        (start - first, stop - first)
        for (start, stop), (first, _) in zip(after.box, before.box, strict=True)
    )
