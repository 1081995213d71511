"""Prepared voxels as small integers: exact where their values are few, else in fine steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Voxels = npt.NDArray[Any]

MOST_LEVELS = 1 << 16
"""An image of at most so many different values is kept exactly, as numbers of a table."""

SAMPLED = 1 << 20
"""Voxels, evenly spaced, from which the way to keep an image is chosen, about."""

FEW_LEVELS = 1 << 14
"""With more different values than this in the sample, all of them are not counted."""

STEPS = 1024
"""Steps between the 1st and the 99th percentile of an image of many values."""

SLAB = 1 << 22
"""Voxels whose different values are sought at once."""


@dataclass(frozen=True)
class Coding:
    """The numbers that represent the values of one channel.

    Attributes:
        dtype: Type of the numbers as numpy names it; `<f4` are the values themselves.
        low: Value of number 0, where numbers are steps.
        step: Size of a step.
        table: Value of each number, where there is a table; else empty.
    """

    dtype: str
    low: float = 0.0
    step: float = 0.0
    table: npt.NDArray[np.float32] | None = None

    @property
    def error(self) -> float:
        """Largest difference between a value and what is read back, but for rounding to float32."""
        return 0.0 if self.table is not None else self.step / 2

    def encode(self, values: npt.NDArray[np.float32]) -> Voxels:
        """Numbers of some values."""
        if self.table is not None:
            return self._numbers(values).astype(self.dtype)
        if self.step == 0.0:
            return values.astype(self.dtype)
        steps: Voxels = np.rint((values - np.float32(self.low)) / np.float32(self.step))
        return steps.astype(self.dtype)

    def _numbers(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        assert self.table is not None
        if self.step > 0.0:
            numbers = np.rint((values - np.float64(self.low)) / self.step).astype(np.int64)
            if np.array_equal(self.table.take(numbers, mode="clip"), values):
                return numbers
        order = np.argsort(self.table, kind="stable")
        found: npt.NDArray[np.int64] = order[np.searchsorted(self.table, values, sorter=order)]
        return found

    def decode(self, numbers: Voxels) -> npt.NDArray[np.float32]:
        """Values of some numbers, a new array."""
        if self.table is not None:
            return self.table.take(numbers)
        if self.step == 0.0:
            return np.array(numbers, dtype=np.float32)
        values = numbers.astype(np.float32)
        values *= np.float32(self.step)
        values += np.float32(self.low)
        return values

    def as_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        table = None if self.table is None else [float(value) for value in self.table]
        return {"dtype": self.dtype, "low": self.low, "step": self.step, "table": table}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Coding:
        """The coding from what `as_record` gave."""
        table = record["table"]
        return cls(
            record["dtype"],
            record["low"],
            record["step"],
            None if table is None else np.asarray(table, dtype=np.float32),
        )


EXACT = Coding("<f4")
"""Values as they are."""


def coding_of(values: npt.NDArray[np.float32]) -> Coding:
    """The coding of one channel of a prepared image.

    An image that was not interpolated has few different values: these are kept exactly. Others are
    rounded to steps of 1/1024 of the range between their 1st and 99th percentile. Values that no
    16 bits of such steps hold, that are constant but for 2 % of the voxels, or that are not finite
    are kept as they are.

    Args:
        values: Any shape, float32.
    """
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // SAMPLED) | 1]
    low, high = float(flat.min()), float(flat.max())
    if not np.isfinite([low, high]).all():
        return EXACT
    if np.unique(sample).size <= FEW_LEVELS:
        levels = _levels(flat)
        if levels is not None:
            return _table(levels)
    first, last = np.percentile(sample, [1.0, 99.0])
    step = float(np.float32((float(last) - float(first)) / STEPS))
    if step <= 0.0 or (high - low) / step > np.iinfo(np.uint16).max:
        return EXACT
    return Coding("<u2", low, step)


def _levels(flat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """All values that occur, in growing order; None for too many."""
    levels = np.empty(0, dtype=np.float32)
    for start in range(0, flat.size, SLAB):
        levels = np.union1d(levels, flat[start : start + SLAB])
        if levels.size > MOST_LEVELS:
            return None
    return levels.astype(np.float32)


def _table(levels: npt.NDArray[np.float32]) -> Coding:
    """A table of values, numbered by their distance from the lowest where that is regular.

    Neighbouring values then have neighbouring numbers, and a number is computed, not sought.
    """
    low = float(levels[0])
    gaps = np.diff(levels.astype(np.float64))
    step = float(gaps.min()) if gaps.size else 0.0
    if step > 0.0:
        count = np.rint((float(levels[-1]) - low) / step)
        step = (float(levels[-1]) - low) / count
        numbers = np.rint((levels - np.float64(low)) / step).astype(np.int64)
        if count < MOST_LEVELS and (np.diff(numbers) > 0).all() and _pays(count, levels.size):
            table = (low + step * np.arange(int(count) + 1)).astype(np.float32)
            table[numbers] = levels
            return Coding(_smallest(table.size), low, step, table)
    return Coding(_smallest(levels.size), low, 0.0, levels)


def _pays(count: float, used: int) -> bool:
    """Return whether a table with its unused values is not much longer, nor of a wider type."""
    return count < 8 * used and (count < 256) == (used <= 256)


def _smallest(size: int) -> str:
    return "|u1" if size <= 256 else "<u2"
