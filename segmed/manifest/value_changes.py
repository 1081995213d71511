"""Structures of a manifest merged, dropped and renamed, while its label files stay as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from segmed.errors import ManifestError, UsageError
from segmed.manifest.ignored import ignore_by_name
from segmed.manifest.regions import regions_of
from segmed.manifest.schema import Manifest, StoredLabel
from segmed.structures import LabelClass


def change_values(
    manifest: Manifest, *, merge: Mapping[str, str] | None = None, drop: str = ""
) -> Manifest:
    """The manifest with some structures merged into one, and some taken as background.

    Args:
        manifest: As built.
        merge: Names of merged structures, by what they are merged of: values, ranges of values and
            names with commas, such as `{"127,130-140": "axon"}`.
        drop: Values, ranges and names that become background.

    Raises:
        UsageError: A value or name is not a structure of the manifest, or is named twice.
        ManifestError: No structure would be left.
    """
    becomes: dict[int, int] = {}
    names: dict[int, str] = {}
    for parts, name in (merge or {}).items():
        values = _values_named(manifest, parts, "--merge")
        if not name or len(values) < 1:
            raise UsageError(f"--merge {parts}={name}: write it as 127,128=axon")
        names[values[0]] = name
        _claim(becomes, values, values[0])
    _claim(becomes, _values_named(manifest, drop, "--drop-values") if drop else [], 0)
    if not becomes:
        return manifest
    stored = tuple(
        label.model_copy(update={"becomes": becomes.get(label.becomes, label.becomes)})
        for label in stored_or_own(manifest)
    )
    if manifest.encoding.has_regions:
        raise UsageError(
            "the set has regions: leave out --merge and --drop-values, and state the regions that "
            "you need with --region"
        )
    left = tuple(
        label.model_copy(update={"name": names[label.value], "code": None})
        if label.value in names
        else label
        for label in manifest.labels
        if becomes.get(label.value, label.value) == label.value
    )
    if not left:
        raise ManifestError("--drop-values leaves no structure: nothing could be learnt")
    return _with_labels(manifest, left, stored)


def rename_labels(manifest: Manifest, names: Sequence[str]) -> Manifest:
    """The manifest with other names of its structures.

    Args:
        manifest: As built, merged and dropped.
        names: A name for each structure by growing value, or `VALUE=NAME` for some of them.

    Raises:
        UsageError: There are more or fewer names than structures, or a value is not a structure.
    """
    ordered = sorted(manifest.labels, key=lambda label: label.value)
    pairs = [name.partition("=") for name in names]
    if any(sign for _, sign, _ in pairs):
        known = [str(label.value) for label in ordered]
        for value, sign, name in pairs:
            if value.strip() not in known or not sign or not name.strip():
                raise UsageError(
                    f"--label-names {value}{sign}{name}: write VALUE=NAME with a value among "
                    f"{_listed(known)}"
                )
        renamed = {int(value): name.strip() for value, _, name in pairs}
    elif len(names) == len(ordered):
        renamed = {label.value: name for label, name in zip(ordered, names, strict=True)}
    else:
        raise UsageError(
            f"{len(names)} label names for {len(ordered)} label values "
            f"{_listed([str(label.value) for label in ordered])}: give one each, or VALUE=NAME"
        )
    labels = tuple(
        label.model_copy(update={"name": renamed.get(label.value, label.name)})
        for label in manifest.labels
    )
    return ignore_by_name(_with_labels(manifest, labels, stored_or_own(manifest)))


def make_regions(manifest: Manifest, named: Mapping[str, str]) -> Manifest:
    """The manifest with regions instead of its structures.

    Args:
        manifest: As built, merged and dropped.
        named: Values, ranges of values and names of structures that a region is made of, by the
            name of the region. Structures in no region become background.

    Raises:
        UsageError: A value or name is not a structure.
        ManifestError: Regions overlap in a way that one label map cannot show.
    """
    if not named:
        return manifest
    values = {name: _values_named(manifest, parts, "--region") for name, parts in named.items()}
    found = regions_of(values, place="--region")
    inside = {value for region in values.values() for value in region}
    outside = [label for label in manifest.labels if label.value not in inside]
    remark = (
        f"in no region, taken as background: {', '.join(label.name for label in outside)}"
        if outside
        else ""
    )
    code_of = {label.value: label.code for label in manifest.labels}
    labels = tuple(
        label if label.region else label.model_copy(update={"code": code_of.get(label.value)})
        for label in found.labels
    )
    becomes = {label.value: 0 for label in outside} | found.becomes
    stored = manifest.stored_labels
    if becomes or stored:
        stored = tuple(
            label.model_copy(update={"becomes": becomes.get(label.becomes, label.becomes)})
            for label in stored_or_own(manifest)
        )
    return manifest.model_copy(
        update={
            "labels": labels,
            "stored_labels": stored,
            "remarks": (*manifest.remarks, *([remark] if remark else [])),
        }
    )


def stored_or_own(manifest: Manifest) -> tuple[StoredLabel, ...]:
    """The stored labels; where none are stated, the manifest's own, each becoming itself."""
    return manifest.stored_labels or tuple(
        StoredLabel(name=label.name, value=label.value, code=label.code, becomes=label.value)
        for label in manifest.labels
    )


def _with_labels(
    manifest: Manifest, labels: tuple[LabelClass, ...], stored: tuple[StoredLabel, ...]
) -> Manifest:
    return manifest.model_copy(update={"labels": labels, "stored_labels": stored})


def _claim(becomes: dict[int, int], values: Sequence[int], target: int) -> None:
    for value in values:
        if value in becomes:
            raise UsageError(f"label value {value} is named twice by --merge and --drop-values")
        becomes[value] = target


def _values_named(manifest: Manifest, text: str, option: str) -> list[int]:
    """The values of some structures, in growing order."""
    by_name = {label.name: label.value for label in manifest.labels}
    known = sorted(by_name.values())
    found: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        span = re.fullmatch(r"(\d+)-(\d+)", part)
        if part in by_name:
            values = [by_name[part]]
        elif span:
            values = [value for value in known if int(span[1]) <= value <= int(span[2])]
        else:
            values = [int(part)] if part.isdecimal() and int(part) in known else []
        if not values:
            raise UsageError(
                f"{option} {part!r}: no structure of the labels; known are "
                f"{_listed([f'{value} ({name})' for name, value in by_name.items()])}"
            )
        found += values
    return sorted(found)


def _listed(texts: Sequence[str], most: int = 12) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
