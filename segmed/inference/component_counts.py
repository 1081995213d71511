"""Components and holes of the structures of one predicted label map, counted against a reference.

The Dice after any removal of components follows from these counts without another label map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmed.encoding import LabelEncoding
from segmed.inference.postprocessing import (
    Cleaning,
    Labels,
    components_in,
    holes_in,
    of_structures,
)
from segmed.metrics.pair import Box, foreground_box

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Overlap:
    """Voxels of a structure in prediction and reference, of those that are annotated."""

    prediction: int
    reference: int
    common: int

    @property
    def is_empty(self) -> bool:
        """Return whether neither has the structure."""
        return self.prediction == self.reference == 0

    @property
    def dice(self) -> float:
        """Dice; 1 where both are empty, since leaving emptiness alone is right."""
        return 1.0 if self.is_empty else 2.0 * self.common / (self.prediction + self.reference)


@dataclass(frozen=True)
class StructureCounts:
    """Counts of one structure in one case.

    Attributes:
        sizes: Voxels of each component of the prediction.
        annotated: Those of them that are annotated.
        common: Those of them that the reference has, too.
        reference: Voxels of the reference.
        holes: Annotated voxels that filling holes adds, and those of them that the reference has.
        voxel_size: Size of a voxel, in ml; 1 for images, whose sizes are in pixels.
    """

    sizes: Counts
    annotated: Counts
    common: Counts
    reference: int
    holes: tuple[int, int] = (0, 0)
    voxel_size: float = 1.0

    def after(self, steps: Sequence[Cleaning]) -> Overlap:
        """Overlap after some steps; the holes of a component that goes are filled, too."""
        stays = np.ones(len(self.sizes), dtype=bool)
        added, hit = 0, 0
        for step in steps:
            if step.step == "fill_holes":
                added, hit = self.holes
            elif step.step == "remove_small":
                stays &= self.sizes >= step.threshold(self.voxel_size)
            elif len(self.sizes):
                stays &= np.arange(len(self.sizes)) == self.sizes.argmax()
        found, common = int(self.annotated[stays].sum()), int(self.common[stays].sum())
        return Overlap(found + added, self.reference, common + hit)


def count_case(
    prediction: Labels, reference: Labels, encoding: LabelEncoding, *, voxel_size: float
) -> dict[int, StructureCounts]:
    """Counts of every structure of a case, by label value.

    Args:
        prediction: Label map `[*spatial]`.
        reference: Label map of the same shape.
        encoding: The structures, and the value of unannotated voxels.
        voxel_size: Size of a voxel, in ml; 1 for images, whose sizes are in pixels.
    """
    found = {}
    for step in of_structures(
        [Cleaning("fill_holes", label.value) for label in encoding.labels], encoding.labels
    ):
        truth = step.mask(reference)
        box = foreground_box(step.mask(prediction))
        if box is None:
            none = np.zeros(0, dtype=np.int64)
            total = int(np.count_nonzero(truth))
            found[step.value] = StructureCounts(none, none, none, total, voxel_size=voxel_size)
            continue
        found[step.value] = _counts(prediction, reference, truth, box, step, encoding, voxel_size)
    return found


def _counts(
    prediction: Labels,
    reference: Labels,
    truth: npt.NDArray[np.bool_],
    box: Box,
    step: Cleaning,
    encoding: LabelEncoding,
    voxel_size: float,
) -> StructureCounts:
    part, hit = prediction[box], truth[box]
    components, sizes = components_in(step.mask(part))
    holes = holes_in(part, step)
    annotated, common = sizes, _sizes(components[hit], len(sizes))
    if encoding.ignore_value is not None:
        is_annotated = reference[box] != encoding.ignore_value
        annotated = _sizes(components[is_annotated], len(sizes))
        holes &= is_annotated
    return StructureCounts(
        sizes=sizes,
        annotated=annotated,
        common=common,
        reference=int(np.count_nonzero(truth)),
        holes=(int(np.count_nonzero(holes)), int(np.count_nonzero(holes & hit))),
        voxel_size=voxel_size,
    )


def _sizes(components: Labels, number: int) -> Counts:
    return np.bincount(components, minlength=number + 1)[1:].astype(np.int64)
