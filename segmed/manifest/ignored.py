"""Unannotated voxels: their value is no structure and enters neither training nor scores."""

from __future__ import annotations

from collections.abc import Sequence

from segmed.errors import ManifestError, UsageError
from segmed.manifest.schema import Manifest, StoredLabel
from segmed.naming import is_ignore_name
from segmed.structures import LabelClass

LARGEST_VALUE = 65535
"""Largest label value."""


def require_no_ignored(labels: Sequence[LabelClass], place: str) -> None:
    """Refuse a label for voxels that were not annotated: it is not a structure.

    Args:
        labels: The structures of a set.
        place: The set, for the message.

    Raises:
        ManifestError: A label is called `ignore`, as nnU-Net calls such voxels.
    """
    for label in labels:
        if is_ignore_name(label.name):
            raise ManifestError(
                f"{place}: label {label.name!r} (value {label.value}) marks voxels that are not "
                f'annotated: take it out of the labels and write "ignore_value": {label.value}'
            )


def ignore_by_name(manifest: Manifest) -> Manifest:
    """The manifest with a label called `ignore` as its `ignore_value`, and a remark on it.

    Raises:
        ManifestError: Two labels are called so, or there is no other.
    """
    named = [label for label in manifest.labels if is_ignore_name(label.name)]
    if not named:
        return manifest
    if len(named) > 1 or manifest.ignore_value is not None:
        values = sorted({label.value for label in named} | {manifest.ignore_value or 0} - {0})
        raise ManifestError(f"several values are called ignore: {values}; merge them into one")
    remark = (
        f"ignored: voxels of value {named[0].value} ({named[0].name!r}) are not annotated: they "
        "enter neither training nor scores"
    )
    found = ignore_values(manifest, named[0].value)
    return found.model_copy(update={"remarks": (*manifest.remarks, remark)})


def ignore_values(manifest: Manifest, value: int) -> Manifest:
    """The manifest in which the voxels of a value are not annotated.

    Args:
        manifest: As built.
        value: The value, which stops being a label if it is one.

    Raises:
        UsageError: The value is out of range, or belongs to a region.
        ManifestError: No label would be left.
    """
    if not 1 <= value <= LARGEST_VALUE:
        raise UsageError(f"--ignore-value {value}: give a label value from 1 to {LARGEST_VALUE}")
    holder = next((label for label in manifest.labels if value in label.region), None)
    if holder is not None:
        raise UsageError(
            f"--ignore-value {value}: the value belongs to the region {holder.name!r}; leave it "
            "out of the regions"
        )
    left = tuple(label for label in manifest.labels if label.value != value)
    gone = [label for label in manifest.labels if label.value == value]
    if not left:
        raise ManifestError("no structure is left beside the ignored value: nothing to learn")
    stored = manifest.stored_labels
    if gone and not stored and gone[0].name.casefold() != "ignore":  # as files may name it
        stored = tuple(
            StoredLabel(name=one.name, value=one.value, code=one.code, becomes=one.value)
            for one in manifest.labels
        )
    return manifest.model_copy(
        update={"labels": left, "ignore_value": value, "stored_labels": stored}
    )
