"""A manifest without its unfit cases, with the reason for each."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from segmed.errors import ManifestError
from segmed.io.atomic import whole_file
from segmed.manifest.faults import ManifestFault
from segmed.manifest.json_form import write_manifest
from segmed.manifest.schema import Manifest


def clean_manifest(
    manifest: Manifest, faults: Sequence[ManifestFault]
) -> tuple[Manifest, dict[str, list[str]]]:
    """The manifest without the cases that have errors; folds stay as they are.

    Args:
        manifest: What was checked.
        faults: What `check_manifest` found; notes drop nothing.

    Returns:
        The clean manifest, and for each dropped case its reasons as `code: message`.

    Raises:
        ManifestError: No training case would be left.
    """
    dropped: dict[str, list[str]] = defaultdict(list)
    for fault in faults:
        if fault.severity == "error":
            dropped[fault.case_id].append(f"{fault.code}: {fault.message}")
    training = tuple(case for case in manifest.training if case.id not in dropped)
    if not training:
        raise ManifestError(
            f"all {len(manifest.training)} training cases have errors: repair the set first"
        )
    test = tuple(case for case in manifest.test if case.id not in dropped)
    return manifest.model_copy(update={"training": training, "test": test}), dict(dropped)


def write_clean(
    manifest: Manifest, faults: Sequence[ManifestFault], path: Path | str
) -> dict[str, list[str]]:
    """Writes the clean manifest, and beside it `NAME.dropped.json` with the reasons.

    Args:
        manifest: What was checked.
        faults: What `check_manifest` found.
        path: JSON file of the clean manifest.

    Returns:
        The reasons of each dropped case.

    Raises:
        ManifestError: No training case would be left.
    """
    clean, dropped = clean_manifest(manifest, faults)
    written = write_manifest(clean, path)
    with whole_file(written.with_suffix(".dropped.json")) as beside:
        beside.write_text(json.dumps(dropped, indent=1) + "\n", encoding="utf-8")
    return dropped
