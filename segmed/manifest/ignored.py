"""Labels that are no structures: voxels that were not annotated."""

from __future__ import annotations

from collections.abc import Sequence

from segmed.errors import ManifestError
from segmed.naming import is_ignore_name
from segmed.structures import LabelClass


def require_no_ignored(labels: Sequence[LabelClass], place: str) -> None:
    """Refuse a label for voxels that were not annotated: it is no structure.

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
                "annotated; segmed cannot leave these out of training yet: annotate them, or "
                "leave out the cases that have them and remove the label from the list"
            )
