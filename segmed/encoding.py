"""Labels as channels of a network and back: softmax classes, or regions with a sigmoid each.

Every part that turns label values into class indices, logits into probabilities or probabilities
into a label map asks the one encoding of its plan or manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from segmed.structures import LabelClass

if TYPE_CHECKING:
    from torch import Tensor

REGION_THRESHOLD = 0.5
"""A voxel belongs to a region if its probability is larger."""


@dataclass(frozen=True)
class LabelEncoding:
    """Encoding of the labels of an image set.

    Prepared labels hold class indices: 0 for background, 1, 2, ... for the values of the labels in
    their order, and one more for unannotated voxels.

    Attributes:
        labels: Structures in the order of the network's channels; regions in the order in which
            they are painted, each before those within it.
        ignore_value: Value of unannotated voxels.
    """

    labels: tuple[LabelClass, ...]
    ignore_value: int | None = None

    @property
    def has_regions(self) -> bool:
        """Return whether the structures overlap, so that each has a sigmoid of its own."""
        return any(label.region for label in self.labels)

    @property
    def is_plain(self) -> bool:
        """Return whether each voxel has one of the classes, and all are annotated."""
        return not self.has_regions and self.ignore_value is None

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """Name of the function from logits to probabilities."""
        return "sigmoid" if self.has_regions else "softmax"

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the network's output channels."""
        names = tuple(label.name for label in self.labels)
        return names if self.has_regions else ("background", *names)

    @property
    def painted_names(self) -> dict[int, str]:
        """Name of what a label map shows of each value: of a region what those within it leave."""
        return {
            label.value: _without_inner(label, self.labels) if label.region else label.name
            for label in self.labels
        }

    @property
    def num_channels(self) -> int:
        """Output channels of the network."""
        return len(self.labels) + (not self.has_regions)

    @cached_property
    def values(self) -> tuple[int, ...]:
        """Label value of each class index, without that of unannotated voxels."""
        return (0, *(label.value for label in self.labels))

    @property
    def ignore_index(self) -> int | None:
        """Class index of unannotated voxels."""
        return None if self.ignore_value is None else len(self.values)

    @cached_property
    def stored_values(self) -> tuple[int, ...]:
        """Label value of each class index of a prepared label."""
        return self.values if self.ignore_value is None else (*self.values, self.ignore_value)

    @cached_property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """Class indices that belong to each structure."""
        index_of = {value: index for index, value in enumerate(self.values)}
        return tuple(tuple(index_of[value] for value in label.values) for label in self.labels)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities `[B, K, *spatial]` of logits of the same shape."""
        return logits.sigmoid() if self.has_regions else logits.softmax(dim=1)

    def class_indices(self, probs: Tensor) -> Tensor:
        """Class index of each voxel.

        Args:
            probs: `[K, *spatial]`, on any device.

        Returns:
            `[*spatial]` int64: the largest probability, the first of equals; of regions the last
            one painted there.
        """
        if not self.has_regions:
            # `max` takes a tenth of the time of `argmax` over a leading axis on the CPU.
            return probs.max(dim=0).indices
        painted = (probs[0] > REGION_THRESHOLD).long()
        for index, channel in enumerate(probs[1:], start=2):
            painted.masked_fill_(channel > REGION_THRESHOLD, index)
        return painted

    def fault(self) -> str:
        """The reason why these labels cannot be encoded; empty where they can."""
        values = [label.value for label in self.labels]
        if len(set(values)) != len(values):
            return f"label values {values} repeat; each needs its own"
        if self.ignore_value is not None and self.ignore_value in {0, *values}:
            return f"the value {self.ignore_value} of unannotated voxels is that of a label"
        return _region_fault(self.labels) if self.has_regions else ""


def _without_inner(label: LabelClass, labels: Sequence[LabelClass]) -> str:
    """Name of a region without the largest regions within it."""
    inner = [one for one in labels if one.value in label.region and one.value != label.value]
    covered = {value for one in inner for value in one.region if value != one.value}
    return (
        f"{label.name} without {', '.join(one.name for one in inner if one.value not in covered)}"
    )


def _region_fault(labels: Sequence[LabelClass]) -> str:
    """The reason why regions cannot be painted one over the other."""
    place = {label.value: number for number, label in enumerate(labels)}
    for number, label in enumerate(labels):
        unknown = sorted(set(label.values) - place.keys())
        if unknown:
            return (
                f"region {label.name!r} has the value {unknown[0]}, which is not a label's own "
                f"value; these are {sorted(place)}"
            )
        for value in label.values:
            if place[value] < number:
                within = labels[place[value]]
                return (
                    f"region {label.name!r} contains the value {value} of {within.name!r}, which "
                    "is painted before it and would be lost: list a region before those within it"
                )
    return ""
