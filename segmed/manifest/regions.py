"""Regions: structures that are made of several label values and may lie one within another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segmed.encoding import LabelEncoding
from segmed.errors import ManifestError
from segmed.manifest.schema import StoredLabel
from segmed.structures import LabelClass


@dataclass(frozen=True)
class RegionSet:
    """Regions as labels, and the values of the files that become another's.

    Attributes:
        labels: The regions in the order in which they are painted.
        becomes: Value of the label map by value of the files, where they differ.
    """

    labels: tuple[LabelClass, ...]
    becomes: dict[int, int]

    def stored(self, names: Mapping[int, str]) -> tuple[StoredLabel, ...]:
        """All values of the files with what they become; none where all stay.

        Args:
            names: Names of values, where the files or the list of labels name them.
        """
        if not self.becomes:
            return ()
        found = {label.value: label.value for label in self.labels} | self.becomes
        return tuple(
            StoredLabel(name=names.get(value, f"value_{value}"), value=value, becomes=becomes)
            for value, becomes in sorted(found.items())
        )


def regions_of(
    named: Mapping[str, Sequence[int]], paint: Sequence[int] = (), *, place: str
) -> RegionSet:
    """Labels of regions, each with a value of its own.

    A region's own value marks its voxels that lie in no region within it. Files may have several
    such values; they become one.

    Args:
        named: Values of each region, by name.
        paint: Own value of each region in the order of `named`, which is the order of painting, as
            nnU-Net's `regions_class_order` states them. Without any, larger regions come first and
            own values are the smallest that no region within has.
        place: Where the regions are stated, for messages.

    Raises:
        ManifestError: A region is empty, regions overlap without one lying within the other and
            without a region of what they share, or the order of painting hides one.
    """
    for name, values in named.items():
        if not values or min(values) < 1:
            raise ManifestError(f"{place}: region {name!r} has the values {list(values)}")
    if paint and len(paint) != len(named):
        raise ManifestError(
            f"{place}: {len(paint)} values to paint ({', '.join(map(str, paint))}) for "
            f"{len(named)} regions ({', '.join(named)}): state one each"
        )
    order = list(named) if paint else sorted(named, key=lambda name: -len(set(named[name])))
    sets = [frozenset(named[name]) for name in order]
    owns = _own_values(sets, paint)
    labels = tuple(
        LabelClass(name=name, value=own, region=_region(number, own, owns, sets))
        for number, (name, own) in enumerate(zip(order, owns, strict=True))
    )
    if fault := LabelEncoding(labels).fault():
        raise ManifestError(f"{place}: {fault}")
    becomes = {}
    for value in sorted(frozenset().union(*sets)):
        own = owns[max(_holders(value, sets))]
        if _members(value, owns, sets) != _members(own, owns, sets):
            shared = " and ".join(repr(order[number]) for number in _holders(value, sets))
            raise ManifestError(
                f"{place}: value {value} lies in {shared}, and none of them within the other: a "
                "label map has one value a voxel; add a region of what they share"
            )
        if own != value:
            becomes[value] = own
    return RegionSet(labels, becomes)


def _own_values(sets: Sequence[frozenset[int]], paint: Sequence[int]) -> list[int]:
    if paint:
        return list(paint)
    free = max(max(values) for values in sets) + 1
    owns = []
    for number, values in enumerate(sets):
        last = [value for value in values if max(_holders(value, sets)) == number]
        alone = sorted(last, key=lambda value: (len(_holders(value, sets)), value))
        owns.append(alone[0] if last else free)
        free += not last
    return owns


def _holders(value: int, sets: Sequence[frozenset[int]]) -> list[int]:
    """Places of the regions that a value of the files lies in."""
    return [number for number, values in enumerate(sets) if value in values]


def _members(value: int, owns: Sequence[int], sets: Sequence[frozenset[int]]) -> list[int]:
    """Places of the regions that a value of the label map lies in."""
    inside = _holders(value, sets)
    if inside or value not in owns:
        return inside
    own = sets[owns.index(value)]  # the files never have it: it marks what the parts leave
    return [number for number, values in enumerate(sets) if own <= values]


def _region(
    number: int, own: int, owns: Sequence[int], sets: Sequence[frozenset[int]]
) -> tuple[int, ...]:
    """Own values of the regions within a region and its own; empty if that is the only one."""
    inside = {value for value in owns if number in _members(value, owns, sets)} | {own}
    return tuple(sorted(inside)) if len(inside) > 1 else ()
