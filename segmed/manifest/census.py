"""Voxels and cases of each structure, and notes on those that are too rare to be intended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from segmed.errors import SegmedError
from segmed.manifest.label_values import label_facts
from segmed.manifest.reference import stored_structures
from segmed.manifest.schema import Manifest

FEW_CASES = 0.1
"""A structure in no larger share of the cases is noted."""

COMPARED_CASES = 5
"""With fewer cases than this, being in few of them says nothing."""

FEW_VOXELS = 10
"""A structure with fewer voxels a case is noted, unless half of the cases have it."""

SHOWN = 8
"""Structures that a note names."""


@dataclass(frozen=True)
class ValueCount:
    """Number of cases and voxels with one label value.

    Attributes:
        value: The value.
        name: The structure; empty for a value without a structure.
        voxels: Voxels in all cases together.
        cases: Cases that have it.
    """

    value: int
    name: str
    voxels: int
    cases: int

    def line(self, num_cases: int) -> str:
        """The count in words, such as `233: 5 voxels in 1 of 10 cases`."""
        voxels = "1 voxel" if self.voxels == 1 else f"{self.voxels:,} voxels"
        named = "" if self.name in {"", f"label_{self.value}"} else f" ({self.name})"
        return f"{self.value}{named}: {voxels} in {self.cases} of {num_cases} cases"


def count_values(
    names: Mapping[int, str], voxels: Iterable[Mapping[int, int]]
) -> tuple[ValueCount, ...]:
    """Counts of every value that occurs, background left out, by growing value.

    Args:
        names: Names of the structures by value.
        voxels: Voxels by value of each case.
    """
    total: dict[int, int] = {}
    cases: dict[int, int] = {}
    for one in voxels:
        for value, number in one.items():
            total[value] = total.get(value, 0) + number
            cases[value] = cases.get(value, 0) + 1
    return tuple(
        ValueCount(value, names.get(value, ""), total[value], cases[value])
        for value in sorted(total)
        if value != 0
    )


def is_rare(count: ValueCount, num_cases: int) -> bool:
    """Return whether a structure occurs in few cases, or in few voxels of its cases."""
    if count.voxels < FEW_VOXELS * count.cases and 2 * count.cases < num_cases:
        return True
    return num_cases >= COMPARED_CASES and count.cases <= FEW_CASES * num_cases


def rare_note(counts: Iterable[ValueCount], num_cases: int) -> str:
    """One line on all structures that occur too rarely to be intended; empty if there are none.

    Args:
        counts: Counts of the structures.
        num_cases: Cases with a label.
    """
    rare = [count for count in counts if is_rare(count, num_cases)]
    if not rare:
        return ""
    shown = "; ".join(count.line(num_cases) for count in rare[:SHOWN])
    more = f"; and {len(rare) - SHOWN} more" if len(rare) > SHOWN else ""
    example = rare[0].value
    return (
        f"{shown}{more}: structures, or stray values? Build with --drop-values {example} or "
        f"--merge {example},VALUE=NAME"
    )


def census_lines(
    manifest: Manifest, *, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Lines on rare, absent and unknown values in the labels of a manifest's training cases.

    Args:
        manifest: As built; each label file is read once, unless it was read before.
        progress: Called with label files read and all of them.
    """
    stored = stored_structures(manifest)
    dropped = {
        label.value
        for label in manifest.stored_labels
        if label.becomes in {0, manifest.ignore_value}
    } | {manifest.ignore_value}
    found, unread = [], []
    paths = [path for case in manifest.training if (path := manifest.label_path(case)) is not None]
    for number, path in enumerate(paths, 1):
        try:
            found.append(label_facts(path, stored).voxels)
        except (SegmedError, OSError) as error:
            unread.append(f"{path.name}: {error}")
        if progress is not None:
            progress(number, len(paths))
    names = {label.value: label.name for label in stored}
    counts = count_values(names, found)
    lines = []
    if note := rare_note([c for c in counts if c.name and c.value not in dropped], len(found)):
        lines.append(f"rare: {note}")
    if strays := [count for count in counts if not count.name]:
        shown = "; ".join(count.line(len(found)) for count in strays[:SHOWN])
        lines.append(f"unknown: {shown}: values that are no label; name them, or correct the files")
    there = {count.value for count in counts} | {manifest.ignore_value}
    absent = [name for value, name in names.items() if value not in there]
    if absent and found:
        lines.append(f"absent: {', '.join(absent[:SHOWN])}: in no training case")
    if unread:
        lines.append(
            f"unread: {len(unread)} label files, such as {unread[0]}; "
            "`segmed manifest check` lists them all"
        )
    return lines
