"""Values of label maps, and structures named for them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from segmed.cores import usable_cores
from segmed.errors import ImageError, ManifestError
from segmed.formats import RASTER_FORMATS
from segmed.io.batches import BATCH, is_small_raster
from segmed.io.head import sniff
from segmed.io.isolated import count_isolated
from segmed.io.label_counts import LabelFacts, counts_of, label_facts_of
from segmed.io.read import read_label
from segmed.structures import LabelClass

MANY_VALUES = 128
"""A mask with more values than this may be an image; its roughness decides."""

LARGEST_VALUE = 65535
"""Largest label value."""

ROUGH_SHARE = 0.25
"""Share of neighbouring voxels that differ: images have more, label maps less."""

COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}

Stamp = tuple[tuple[str, int, int], ...]
Key = tuple[Path, Stamp, tuple[str, ...]]

_known: dict[Key, LabelFacts] = {}
"""Facts of the files that this process has read; a hundred bytes or two each."""


def label_facts(path: Path, labels: Sequence[LabelClass] = ()) -> LabelFacts:
    """Values of a label file as they are stored; read once for as long as it stays the same.

    Args:
        path: The file.
        labels: Structures that the segments of a DICOM segmentation are matched to.

    Raises:
        ImageError: The file cannot be read as labels.
    """
    key = _key(path, labels)
    if key not in _known:
        _known[key] = label_facts_of(read_label(path, labels=labels).numpy())
    return _known[key]


def _key(path: Path, labels: Sequence[LabelClass], *, is_raster: bool | None = None) -> Key:
    """File, state and matched structures: what its values depend on."""
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    stats = [(file.name, file.stat()) for file in files]
    stamp = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    has_no_segments = _is_raster(path) if is_raster is None else is_raster
    return path, stamp, () if has_no_segments else tuple(one.model_dump_json() for one in labels)


def _is_raster(path: Path) -> bool:
    """Return whether a file has no segments to match, so that stated labels change nothing."""
    return path.is_file() and sniff(path).format in RASTER_FORMATS


def count_rasters(paths: Sequence[Path]) -> None:
    """Count the values of small raster files, many to a process, for `label_facts` to give.

    A file that is refused is left to `label_facts`, which names it.

    Args:
        paths: Label files of one origin, of any format.
    """
    keys = [_key(path, (), is_raster=True) for path in paths if is_small_raster(path)]
    small = [key for key in keys if key not in _known]
    batches = [small[start : start + BATCH] for start in range(0, len(small), BATCH)]

    def counted(batch: list[Key]) -> list[LabelFacts | None]:
        return count_isolated([path for path, _, _ in batch])

    with ThreadPoolExecutor(usable_cores()) as pool:
        for batch, found in zip(batches, pool.map(counted, batches), strict=True):
            _known.update(
                {key: facts for key, facts in zip(batch, found, strict=True) if facts is not None}
            )


def label_values(folder: Path, names: list[str]) -> list[int]:
    """The values besides 0 that occur in some label files, in growing order.

    Args:
        folder: Where the names start from.
        names: Label files.

    Raises:
        ManifestError: A file cannot be read as labels, all are empty, or the values are such that
            these are not label maps.
    """

    def facts_of(name: str) -> LabelFacts:
        try:
            return label_facts(folder / name)
        except ImageError as error:
            raise ManifestError(f"label {name}: {error}") from error

    count_rasters([folder / name for name in names])
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
                "are not label maps; give masks whose values are numbers of structures"
            )
    if found[-1] > LARGEST_VALUE:
        raise ManifestError(
            f"the labels of {folder} contain the value {found[-1]}; label values are at most "
            f"{LARGEST_VALUE}, so give the structures smaller numbers"
        )
    return found


def counts_in(label: Tensor) -> dict[int, int]:
    """Voxels of each value of a label map of integers."""
    return counts_of(label.numpy())


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
