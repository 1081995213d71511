"""Label values of a file, counted; without PyTorch, so that the process that decodes counts too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

COUNTED_VALUES = 1 << 16
"""Values below this are counted, which is quicker than sorting them."""

PIECE = 1 << 22
"""Voxels that are counted at once: counting takes eight bytes for each."""


@dataclass(frozen=True)
class LabelFacts:
    """Label values of one file, with their voxel counts.

    Attributes:
        voxels: Voxels of each value, 0 among them.
        roughness: Share of neighbours along the last axis that differ.
    """

    voxels: dict[int, int]
    roughness: float

    def as_record(self) -> list[Any]:
        """Plain JSON values."""
        return [list(self.voxels), list(self.voxels.values()), self.roughness]

    @classmethod
    def from_record(cls, record: list[Any]) -> LabelFacts:
        """The facts from what `as_record` gave."""
        values, counts, roughness = record
        return cls(dict(zip(values, counts, strict=True)), roughness)


def label_facts_of(label: npt.NDArray[np.integer[Any]]) -> LabelFacts:
    """Count the values of a label map of integers, of any shape with at least one axis."""
    differ = np.count_nonzero(label[..., 1:] != label[..., :-1])
    neighbours = label[..., 1:].size
    return LabelFacts(counts_of(label), differ / neighbours if neighbours else 0.0)


def counts_of(label: npt.NDArray[np.integer[Any]]) -> dict[int, int]:
    """Voxels of each value of a label map of integers."""
    if label.size == 0:
        return {}
    if label.min() < 0 or label.max() >= COUNTED_VALUES:
        values, counts = np.unique(label, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    flat = label.ravel(order="K")
    counts = np.zeros(int(label.max()) + 1, dtype=np.int64)
    for start in range(0, flat.size, PIECE):
        counts += np.bincount(flat[start : start + PIECE], minlength=len(counts))
    values = np.flatnonzero(counts)
    return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
