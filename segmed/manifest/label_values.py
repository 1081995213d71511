"""Values of label maps, and structures named for them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from segmed.cores import usable_cores
from segmed.errors import ImageError, ManifestError
from segmed.formats import RASTER_FORMATS
from segmed.io.head import sniff
from segmed.io.read import read_label
from segmed.structures import LabelClass

MANY_VALUES = 128
"""A mask with more values than this may be an image; its roughness decides."""

LARGEST_VALUE = 65535
"""Largest label value."""

ROUGH_SHARE = 0.25
"""Share of neighbouring voxels that differ: images have more, label maps less."""

COUNTED_VALUES = 1 << 16
"""Values below this are counted, which is quicker than sorting them."""

KEPT_FILES = 1 << 20
"""Label files whose values are kept: more than a set has, or each would be read twice."""

COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}

Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class LabelFacts:
    """Label values of one file, with their voxel counts and boxes.

    Attributes:
        voxels: Voxels of each value, 0 among them.
        roughness: Share of neighbours along the last axis that differ.
    """

    voxels: dict[int, int]
    roughness: float


def label_facts(path: Path, labels: Sequence[LabelClass] = ()) -> LabelFacts:
    """Values of a label file as they are stored; read once for as long as it stays the same.

    Args:
        path: The file.
        labels: Structures that the segments of a DICOM segmentation are matched to.

    Raises:
        ImageError: The file cannot be read as labels.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    stats = [(file.name, file.stat()) for file in files]
    stamp = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    stated = () if _is_raster(path) else tuple(label.model_dump_json() for label in labels)
    return _facts_once(path, stamp, stated)


def _is_raster(path: Path) -> bool:
    """Return whether a file has no segments to match, so that stated labels change nothing."""
    return path.is_file() and sniff(path).format in RASTER_FORMATS


@lru_cache(maxsize=KEPT_FILES)
def _facts_once(path: Path, stamp: Stamp, labels: tuple[str, ...]) -> LabelFacts:
    stated = [LabelClass.model_validate_json(label) for label in labels]
    label = read_label(path, labels=stated).as_tensor()
    differ = label[..., 1:] != label[..., :-1]
    return LabelFacts(counts_in(label), float(differ.float().mean()) if differ.numel() else 0.0)


def label_values(folder: Path, names: list[str]) -> list[int]:
    """The values besides 0 that occur in some label files, in growing order.

    Args:
        folder: Where the names start from.
        names: Label files.

    Raises:
        ManifestError: A file cannot be read as labels, all are empty, or the values are such that
            these are no label maps.
    """

    def facts_of(name: str) -> LabelFacts:
        try:
            return label_facts(folder / name)
        except ImageError as error:
            raise ManifestError(f"label {name}: {error}") from error

    with ThreadPoolExecutor(usable_cores()) as pool:
        facts = list(pool.map(facts_of, names))
    found = sorted(set().union(*(one.voxels for one in facts)) - {0})
    if not found:
        raise ManifestError(f"the labels of {folder} are all empty: nothing could be learnt")
    for name, one in zip(names, facts, strict=True):
        if min(one.voxels) < 0 or (len(one.voxels) > MANY_VALUES and one.roughness > ROUGH_SHARE):
            raise ManifestError(
                f"label {name} has {len(one.voxels)} values from {min(one.voxels)} to "
                f"{max(one.voxels)}, and {one.roughness:.0%} of neighbouring voxels differ: these "
                "are no label maps; give masks whose values are numbers of structures"
            )
    if found[-1] > LARGEST_VALUE:
        raise ManifestError(
            f"the labels of {folder} contain the value {found[-1]}; label values are at most "
            f"{LARGEST_VALUE}, so give the structures smaller numbers"
        )
    return found


def counts_in(label: Tensor) -> dict[int, int]:
    """Voxels of each value of a label map of integers."""
    low, high = (int(end) for end in torch.aminmax(label))
    if low < 0 or high >= COUNTED_VALUES:
        values, counts = torch.unique(label, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    counts = torch.bincount(label.flatten())
    values = counts.nonzero().flatten()
    return dict(zip(values.tolist(), counts[values].tolist(), strict=True))


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


def values_in(label: Tensor) -> set[int]:
    """The values that occur in a label map of integers."""
    return set(counts_in(label))
