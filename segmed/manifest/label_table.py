"""The table of labels of a `dataset.json`: names by value, values by name, regions, `ignore`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segmed.errors import ManifestError
from segmed.manifest.strict_json import kind_in_words
from segmed.naming import is_ignore_name

Fault = Callable[[str], ManifestError]
"""From a message to an error about the file."""

PAINT_KEY = "regions_class_order"
"""nnU-Net's key of the value that is painted for each region, in the order of painting."""


@dataclass(frozen=True)
class LabelTable:
    """Structures as a `dataset.json` names them.

    Attributes:
        names: Names of single values, background among them.
        regions: Values of each region by name, single values among them; empty where each
            structure has one value.
        paint: Own value of each region, as nnU-Net states them; else empty.
        ignore_value: Value of unannotated voxels, beside regions; in a table of single
            values they are in `names`.
    """

    names: dict[int, str]
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    paint: tuple[int, ...] = ()
    ignore_value: int | None = None


def label_table(content: Mapping[str, Any], fault: Fault) -> LabelTable | None:
    """The table of labels; None if no structures are named.

    Args:
        content: Values of the file by key in lower case.
        fault: Makes an error about the file.

    Raises:
        ManifestError: There is no valid table, a value is not a whole number, or two names share a
            value.
    """
    table = content.get("labels")
    if table is None or table in ({}, []):
        return None
    if isinstance(table, list):
        table = {str(value): name for value, name in enumerate(table)}
    if not isinstance(table, dict):
        raise fault(f": 'labels' is {kind_in_words(table)}, expected names by value")
    if any(isinstance(value, list) and len(value) > 1 for value in table.values()):
        return _regions(table, content.get(PAINT_KEY), fault)
    return LabelTable(_single_values(table, fault))


def _single_values(table: Mapping[str, Any], fault: Fault) -> dict[int, str]:
    values_first = all(whole(key) is not None for key in table)
    found: dict[int, str] = {}
    for key, value in table.items():
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        name, number = (value, whole(key)) if values_first else (key, whole(one))
        if number is None or isinstance(name, list | dict) or name is None:
            raise fault(f": label {key!r} has the value {value!r}, expected a number")
        if number in found:
            raise fault(f": labels {found[number]!r} and {name!r} have one value {number}")
        found[number] = str(name)
    return found


def _regions(table: Mapping[str, Any], order: Any, fault: Fault) -> LabelTable:
    regions: dict[str, tuple[int, ...]] = {}
    ignored: list[int] = []
    for name, value in table.items():
        listed = value if isinstance(value, list) else [value]
        numbers = [whole(one) for one in listed]
        if not numbers or None in numbers:
            raise fault(f": region {name!r} has the values {value!r}, expected numbers")
        values = tuple(number for number in numbers if number is not None)
        if is_ignore_name(name):
            ignored += values
        elif values != (0,):
            regions[name] = values
    if len(ignored) > 1:
        raise fault(f": {len(ignored)} values are called ignore: {ignored}; give them one")
    if order is not None and not isinstance(order, list):
        raise fault(f": {PAINT_KEY!r} is {kind_in_words(order)}, expected a list of values")
    paint = [whole(value) for value in order or []]
    if None in paint:
        raise fault(f": {PAINT_KEY!r} is {order!r}, expected a list of values")
    names = {values[0]: name for name, values in regions.items() if len(values) == 1}
    order_of_painting = tuple(value for value in paint if value)
    return LabelTable(names, regions, order_of_painting, ignored[0] if ignored else None)


def whole(value: Any) -> int | None:
    """A whole number, also as text or as a float; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    return value if isinstance(value, int) and value >= 0 else None
