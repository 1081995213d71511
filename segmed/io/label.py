"""Label maps: integers on the grid of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.errors import ImageError

INTEGER_TOLERANCE = 1e-3
"""Largest distance of a stored label from an integer; 0.99999997 counts as 1."""


def as_integers(array: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int32]:
    """Round stored label values, which may come as floats or with a scale, to integers.

    Args:
        array: Label values of any real type.
        path: The file, for the message.

    Returns:
        The same values as int32.

    Raises:
        ImageError: `not_integer`: a value is further than 1e-3 from any integer, or beyond int32.
    """
    if array.dtype.kind not in "iub":
        rounded = np.rint(array)
        off = np.abs(array - rounded)
        if not (off <= INTEGER_TOLERANCE).all():
            where = int(np.argmax(~(off <= INTEGER_TOLERANCE)))
            raise ImageError(
                f"{path.name}: {int((~(off <= INTEGER_TOLERANCE)).sum())} voxels have no integer "
                f"label (first {float(array.flat[where]):.6g}); store class numbers",
                reason="not_integer",
                paths=[path],
            )
        array = rounded
    limits = np.iinfo(np.int32)
    if np.can_cast(array.dtype, np.int32):
        return array.astype(np.int32)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise ImageError(
            f"{path.name}: label values up to {array.max()} do not fit 32 bits",
            reason="not_integer",
            paths=[path],
        )
    return array.astype(np.int32)


def smallest_type(label: npt.NDArray[Any], path: Path) -> npt.NDArray[np.generic]:
    """A label map in the smallest sufficient unsigned type, for writing.

    Raises:
        ImageError: `not_integer`: a value is negative, above 65535 or no integer.
    """
    values = as_integers(label, path)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError(
            f"{path.name}: labels from {values.min()} to {values.max()}; "
            "the values of a label map must be 0 to 65535",
            reason="not_integer",
            paths=[path],
        )
    return values.astype(np.uint8 if not values.size or values.max() <= 255 else np.uint16)
