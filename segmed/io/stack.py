"""Read a folder of numbered raster images as one volume.

Rules. All files are PNG, TIFF or JPEG of one size and as many channels; their names differ in one
number, which counts up by one. A gap is `missing_slice`, an equal number `doubled_slice`, anything
else `mixed_stack`. Rasters state no spacing: voxels of 1 mm are assumed, which a note says.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from segmed.errors import ImageError
from segmed.formats import RASTER_FORMATS, RASTER_SUFFIXES
from segmed.io.head import sniff
from segmed.io.limits import ReadLimits, check_size
from segmed.io.raster import read_raster
from segmed.io.source import Loaded, Source

FEWEST_SLICES = 2
SPACING_NOTE = "a folder of slices states no spacing: voxels of 1 mm are assumed"


def stack_files(folder: Path) -> list[Path]:
    """The raster images of a folder that is a stack of slices, by name; none if it is not a stack.

    Args:
        folder: A stack contains at least two raster images and, hidden files apart, nothing else.
    """
    try:
        entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    except OSError:
        return []
    rasters = [path for path in entries if path.name.lower().endswith(RASTER_SUFFIXES)]
    is_stack = len(entries) == len(rasters) >= FEWEST_SLICES and all(map(Path.is_file, rasters))
    return rasters if is_stack else []


def states_spacing(path: Path) -> bool:
    """False for raster images and stacks of them, whose distances are in pixels."""
    return not (path.name.lower().endswith(RASTER_SUFFIXES) or is_stack(path))


def is_stack(path: Path) -> bool:
    """True for a folder that contains the slices of a volume as raster images."""
    return path.is_dir() and bool(stack_files(path))


def read_stack(folder: Path, limits: ReadLimits, *, exact: bool = False) -> Loaded:
    """Read a stack of slices.

    Args:
        folder: The folder; see `stack_files`.
        limits: Bounds on the volume.
        exact: A label: stored values, palettes as indices.

    Returns:
        `[C, rows, columns, slices]`, the affine the identity.

    Raises:
        ImageError: `missing_slice`, `doubled_slice`, `mixed_stack`, or the reason of a slice.
    """
    files = in_order(stack_files(folder))
    first = _slice(files[0], limits, exact=exact)
    check_size((*first.array.shape[1:], len(files)), limits, files[0])
    volume = np.empty((*first.array.shape, len(files)), dtype=first.array.dtype, order="F")
    for number, path in enumerate(files):
        array = first.array if number == 0 else _slice(path, limits, exact=exact).array
        if array.shape != first.array.shape:
            raise ImageError(
                f"{path.name}: {array.shape} (channels, rows, columns) in a stack of "
                f"{first.array.shape}; the slices of a volume have one size",
                reason="mixed_stack",
                paths=[path],
            )
        if not np.can_cast(array.dtype, volume.dtype):
            volume = volume.astype(np.promote_types(volume.dtype, array.dtype))
        volume[..., number] = array
    source = Source(format="stack", paths=tuple(files), notes=(SPACING_NOTE,))
    return Loaded(volume, np.eye(4), source)


def _slice(path: Path, limits: ReadLimits, *, exact: bool) -> Loaded:
    kind = sniff(path).format
    if kind not in RASTER_FORMATS:
        raise ImageError(
            f"{path.name}: no PNG, TIFF or JPEG image", reason="unknown_format", paths=[path]
        )
    return read_raster(path, kind, limits, exact=exact)


def _value(part: str) -> int | str:
    """A part of a name: 07 and 7 are one number."""
    return int(part) if part.isdigit() and part.isascii() else part


def in_order(files: list[Path]) -> list[Path]:
    """Slices by the number that their names differ in.

    Raises:
        ImageError: See the module.
    """
    parts = [re.split(r"(\d+)", path.name) for path in files]
    places = {len(one) for one in parts}
    differing = {
        place for place in range(min(places)) if len({_value(one[place]) for one in parts}) > 1
    }
    if len(places) > 1 or len(differing) != 1 or min(differing) % 2 == 0:
        raise ImageError(
            f"{files[0].name} and {files[-1].name}: the names of the slices of a volume differ in "
            "one number, such as slice_001, slice_002; keep one volume in a folder",
            reason="mixed_stack",
            paths=files,
        )
    place = differing.pop()
    by_number = sorted((int(one[place]), path) for one, path in zip(parts, files, strict=True))
    numbers = [number for number, _ in by_number]
    for number, following in pairwise(numbers):
        step = following - number
        if step != 1:
            reason = "doubled_slice" if step == 0 else "missing_slice"
            found = f"slice {number} twice" if step == 0 else f"no slice {number + 1}"
            raise ImageError(
                f"{files[0].parent.name}: {found} ({len(files)} slices from {numbers[0]} to "
                f"{numbers[-1]})",
                reason=reason,
                paths=files,
            )
    return [path for _, path in by_number]
