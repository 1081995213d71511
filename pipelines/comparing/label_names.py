"""Names and values of the structures of label maps: from a file, or from the label maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segmed.errors import UsageError
from segmed.manifest import LabelClass, Manifest, read_manifest
from segmed.manifest.label_table import PAINT_KEY
from segmed.manifest.regions import regions_of
from segmed.naming import is_ignore_name


def labels_of(path: Path | None, references: Path) -> tuple[LabelClass, ...]:
    """Names and values of structures: from a JSON file, or those that occur in the references.

    Args:
        path: JSON: a manifest, or an object of name to value.
        references: Folder of label maps.

    Raises:
        UsageError: The file has no labels, or the references have none.
    """
    if path is not None:
        return _labels_from(path)
    # These read images; trainings and comparisons need none of it before they start.
    from segmed.manifest.found_structures import (  # noqa: PLC0415 - see above
        found_structures,
        segments_at,
    )
    from segmed.manifest.label_values import (  # noqa: PLC0415 - see above
        count_rasters,
        label_facts,
    )
    from segmed.metrics.label_pairs import label_files  # noqa: PLC0415 - see above

    files = [str(path.relative_to(references)) for path in label_files(references).values()]
    if any(segments_at(references / name) for name in files):
        return found_structures(references, files)[0]
    count_rasters([references / name for name in files])
    values: set[int] = set()
    for name in files:
        values |= set(label_facts(references / name).voxels)
    values.discard(0)
    if not values:
        raise UsageError(
            f"the label maps in {references} contain no structure; name them: --labels"
        )
    return tuple(LabelClass(name=f"label{value}", value=value) for value in sorted(values))


def manifest_of(path: Path | None) -> Manifest | None:
    """The manifest that names the labels, if that is what the file is."""
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_manifest = isinstance(content, dict) and {"labels", "channels", "training"} <= set(content)
    return read_manifest(path) if is_manifest else None


def _labels_from(path: Path) -> tuple[LabelClass, ...]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not a JSON file: {error}") from error
    labels = content.get("labels", content) if isinstance(content, dict) else content
    try:
        if isinstance(labels, dict):
            return _labels_named(labels, content.get(PAINT_KEY), path)
        return tuple(LabelClass.model_validate(entry) for entry in labels)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f'{path} has no labels: write {{"anterior": 1, "posterior": 2}}, or give a manifest'
        ) from error


def _labels_named(named: dict[str, Any], paint: Any, path: Path) -> tuple[LabelClass, ...]:
    """Labels by name: one value each, or for regions a list, as nnU-Net writes them."""
    values = {
        name: value if isinstance(value, list) else [value]
        for name, value in named.items()
        if value not in (0, [0]) and not is_ignore_name(name)
    }
    if all(len(one) == 1 for one in values.values()):
        return tuple(LabelClass(name=name, value=one[0]) for name, one in values.items())
    found = regions_of(values, tuple(paint or ()), place=str(path))
    if found.becomes:
        joined = ", ".join(f"{value} as {becomes}" for value, becomes in found.becomes.items())
        raise UsageError(
            f"{path}: values of equal meaning ({joined}) need a manifest: build one of the set"
        )
    return found.labels
