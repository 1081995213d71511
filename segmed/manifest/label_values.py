"""Values of label maps, and structures named for them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from segmed.errors import ImageError, ManifestError
from segmed.io.careful import read_label_carefully
from segmed.structures import LabelClass

MAX_LABEL_VALUES = 128
"""More distinct values than this in a set of masks are no labels."""

COUNTED_VALUES = 1 << 16
"""Values below this are counted, which is quicker than sorting them."""

COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}


def label_values(folder: Path, names: list[str]) -> list[int]:
    """The values besides 0 that occur in some label files, in growing order.

    Args:
        folder: Where the names start from.
        names: Label files.

    Raises:
        ManifestError: A file cannot be read as labels, all are empty, or the values are so many
            or so low that these are no label maps.
    """

    def values_of(name: str) -> set[int]:
        try:
            return values_in(read_label_carefully(folder / name).as_tensor())
        except ImageError as error:
            raise ManifestError(f"label {name}: {error}") from error

    with ThreadPoolExecutor(2) as pool:
        found = sorted(set().union(*pool.map(values_of, names)) - {0})
    if not found:
        raise ManifestError(f"the labels of {folder} are all empty: nothing could be learnt")
    if len(found) > MAX_LABEL_VALUES or found[0] < 0:
        raise ManifestError(
            f"the labels of {folder} hold {len(found)} values from {found[0]} to {found[-1]}: "
            "these are no label maps"
        )
    return found


def values_in(label: Tensor) -> set[int]:
    """The values that occur in a label map of integers."""
    low, high = (int(end) for end in torch.aminmax(label))
    if low < 0 or high >= COUNTED_VALUES:
        return set(torch.unique(label).tolist())
    return set(torch.bincount(label.flatten()).nonzero().flatten().tolist())


def named_labels(values: list[int], names: Sequence[str]) -> tuple[LabelClass, ...]:
    """Structures for label values, with given names or plain ones.

    Raises:
        ManifestError: The names are more or fewer than the values.
    """
    if names and len(names) != len(values):
        raise ManifestError(
            f"{len(names)} label names for {len(values)} label values {values}: give one each"
        )
    if not names:
        names = ["foreground"] if len(values) == 1 else [f"label_{value}" for value in values]
    return tuple(
        LabelClass(name=name, value=value) for name, value in zip(names, values, strict=True)
    )
