"""Facts of one training case, from which a fingerprint is gathered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmed.geometry import Grid
from segmed.manifest.resampled import Box, Extent
from segmed.plan.shapes import StructureShapes


@dataclass(frozen=True)
class CaseFacts:
    """Geometry, intensities and label extents of one case.

    Attributes:
        shape: Voxels along each axis, after reorientation.
        filled_shape: The same of the bounding box of voxels that are not zero in some channel.
        spacing_mm: Voxel edge along each axis, after reorientation.
        orientation: Axis codes as stored.
        class_voxels: Voxels of each label, in the manifest's order.
        foreground: Sampled intensities under the labels, `[channels, n]`.
        background_zero: Share of voxels that are exactly zero in all channels.
        grid: Grid as stored.
        box: Bounding box of voxels that are not zero, along the stored axes.
        extents: Sizes of the structures.
        shapes: Sizes of each label's structure, axes after reorientation.
    """

    shape: tuple[int, ...]
    filled_shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    orientation: str
    class_voxels: tuple[int, ...]
    foreground: npt.NDArray[np.float32]
    background_zero: float
    grid: Grid
    box: Box
    extents: tuple[Extent, ...]
    shapes: StructureShapes
