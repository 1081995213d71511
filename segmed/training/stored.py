"""Prepared cases on disk as training cases: a patch is read with the blocks that it touches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segmed.errors import ManifestError
from segmed.preprocessing import PreparedCase
from segmed.preprocessing.entry import PreparedEntry
from segmed.training.sampling import LabelledPatch, TrainingCase, overlap, padded


def stored_case(prepared: PreparedCase) -> TrainingCase:
    """A training case of which nothing is in memory yet.

    Raises:
        ManifestError: It has no label.
    """
    facts = prepared.facts
    if facts.label_dtype is None:
        raise ManifestError(f"case {prepared.id} has no label: it cannot be trained on")
    points = StoredPoints(prepared)
    return TrainingCase(prepared.id, StoredVoxels(prepared), points, facts.classes, facts.lowest)


@dataclass(frozen=True)
class StoredVoxels:
    """Image and label of a case of a cache.

    Attributes:
        prepared: The case.
    """

    prepared: PreparedCase

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.prepared.facts.shape

    @property
    def num_bytes(self) -> int:
        """Bytes of both in memory."""
        return self.prepared.facts.num_bytes

    def image(self) -> Tensor:
        """The whole image."""
        return self.prepared.read(PreparedEntry.image)

    def label(self) -> Tensor:
        """The whole label."""
        return self.prepared.read(lambda entry: _present(entry.label()))

    def patch(self, centre: Sequence[int], size: Sequence[int], fill: float) -> LabelledPatch:
        """A box of both, copied out of the blocks that it touches; these stay in memory."""
        inside, target = overlap(centre, size, self.shape)
        image, label = self.prepared.read(
            lambda entry: (
                entry.image(inside, is_kept=True),
                _present(entry.label(inside, is_kept=True)),
            )
        )
        return padded(image, target, size, fill=fill), padded(label, target, size, fill=0)


class StoredPoints(Sequence[npt.NDArray[np.int64]]):
    """Voxels of each class of a case of a cache, read when they are asked for.

    Args:
        prepared: The case.
    """

    def __init__(self, prepared: PreparedCase) -> None:
        self._prepared = prepared

    def __len__(self) -> int:
        """Number of classes that occur."""
        return len(self._prepared.facts.classes)

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[np.int64]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[npt.NDArray[np.int64]]: ...

    def __getitem__(
        self, index: int | slice
    ) -> npt.NDArray[np.int64] | Sequence[npt.NDArray[np.int64]]:
        """Voxels `[n, axes]` of the class at a place among those that occur."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        return self._prepared.read(lambda entry: entry.points(number))


def _present(label: Tensor | None) -> Tensor:
    if label is None:
        raise ValueError("the label of a prepared case is missing")
    return label
