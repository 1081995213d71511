"""Elements of a DICOM data set by keyword, read with tolerance for odd values."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from pydicom.dataset import Dataset


class Elements(Protocol):
    """Elements by keyword: a pydicom data set, or the dictionary of a quick read."""

    def get(self, key: str, /) -> Any:
        """The value, or None."""
        ...

    def __contains__(self, key: Any, /) -> bool: ...


def numbers(dataset: Elements, name: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers of an element, or None where it has anything else."""
    try:
        value = dataset.get(name)
        if value is None or value == "" or isinstance(value, bytes):
            return None
        parts = [float(v) for v in (value if _is_multi(value) else [value])]
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return None
    if len(parts) < count or not np.isfinite(parts[:count]).all():
        return None
    return tuple(parts[:count]) if count == 1 or len(parts) == count else None


def words(dataset: Elements, name: str) -> tuple[str, ...]:
    """The values of a text element; none where it is absent, empty or cannot be read."""
    try:
        value = dataset.get(name)
        if value is None or value == "":
            return ()
        return tuple(str(part).strip("\0 ") for part in (value if _is_multi(value) else [value]))
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return ()


def _is_multi(value: Any) -> bool:
    return not isinstance(value, str | bytes | int | float) and hasattr(value, "__iter__")


def number(dataset: Elements, name: str) -> float | None:
    """One finite number of an element, or None."""
    found = numbers(dataset, name, 1)
    return None if found is None else found[0]


def macro(places: tuple[Dataset, Dataset], name: str) -> Dataset:
    """A functional group: the frame's own, else the shared one, else an empty one."""
    for place in places:
        items = place.get(name)
        if items:
            return items[0]
    return Dataset()
