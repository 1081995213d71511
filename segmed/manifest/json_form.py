"""Manifests as JSON files that MONAI's data-list loader reads as well."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segmed.errors import ManifestError
from segmed.io.atomic import whole_file
from segmed.manifest.ignored import require_no_ignored
from segmed.manifest.schema import SCHEMA_VERSION, Case, Manifest
from segmed.manifest.strict_json import read_object
from segmed.validation import first_fault


def read_manifest(path: Path | str) -> Manifest:
    """A manifest from its JSON file; relative paths start from the file's folder.

    Raises:
        ManifestError: The file is missing, is not JSON, is of another schema version, lacks
            a field or has an unknown one, repeats a case id, or splits a group over folds.
    """
    path = Path(path)
    try:
        content = read_object(path, "manifest")
    except FileNotFoundError:
        raise ManifestError(
            f"manifest {path} does not exist: `segmed manifest build` makes one"
        ) from None
    manifest = _parsed(path, content)
    _require_consistent(path, manifest)
    return manifest


def _parsed(path: Path, content: dict[str, Any]) -> Manifest:
    version = content.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ManifestError(
            f"manifest {path} has schema version {version!r}; this segmed reads {SCHEMA_VERSION}"
        )
    if isinstance(content.get("labels"), dict):
        raise ManifestError(
            f"{path} is a Medical Segmentation Decathlon data list, not a manifest: "
            f"`segmed manifest build {path.parent}` makes one of it"
        )
    try:
        return Manifest.model_validate({**content, "root": path.parent, "remarks": ()})
    except ValidationError as error:
        fault = first_fault(error)
        place = fault.field or "manifest"
        raise ManifestError(f"manifest {path}: {place}: {fault.sentence}") from error


def _require_consistent(path: Path, manifest: Manifest) -> None:
    seen: set[str] = set()
    fold_of: dict[str, int | None] = {}
    for case in (*manifest.training, *manifest.test):
        if case.id in seen:
            raise ManifestError(
                f"manifest {path}: case id {case.id!r} occurs twice; ids are unique"
            )
        seen.add(case.id)
        if len(case.image) not in {1, len(manifest.channels)}:  # one RGB file has three channels
            raise ManifestError(
                f"manifest {path}: case {case.id!r} has {len(case.image)} image files for "
                f"{len(manifest.channels)} channels; name a file for each, or one for all"
            )
        if fold_of.setdefault(case.group, case.fold) != case.fold:
            raise ManifestError(
                f"manifest {path}: group {case.group!r} is split over folds or kept out only in "
                "part; cases of one patient belong together"
            )
    if fault := manifest.encoding.fault():
        raise ManifestError(f"manifest {path}: {fault}")
    require_no_ignored(manifest.labels, str(path))
    _require_consistent_values(path, manifest)


def _require_consistent_values(path: Path, manifest: Manifest) -> None:
    """Check that stored labels lead to labels, each value once."""
    stored = [label.value for label in manifest.stored_labels]
    if len(set(stored)) != len(stored):
        raise ManifestError(f"manifest {path}: stored label values repeat; each needs its own")
    known = set(manifest.encoding.stored_values)
    lost = sorted({label.becomes for label in manifest.stored_labels} - known)
    if lost:
        raise ManifestError(
            f"manifest {path}: stored labels become {lost[0]}, which is not a label; labels are "
            f"{', '.join(map(str, sorted(known - {0})))}, and 0 is background"
        )


def write_manifest(manifest: Manifest, path: Path | str) -> Path:
    """Writes a manifest as JSON, whole or not at all, its paths relative to the file's folder.

    Args:
        manifest: What to write.
        path: The JSON file; its folder is made where it is missing.

    Returns:
        The path written.
    """
    path = Path(path)
    rebased = rebase(manifest, path.parent)
    content = rebased.model_dump(mode="json", exclude_none=True)
    # exclude_none leaves `ignore_value` out of manifests without it, likewise.
    if not content["stored_labels"]:
        del content["stored_labels"]  # earlier versions read manifests without it
    for row in (*content["training"], *content["test"]):
        if len(row["image"]) == 1:
            row["image"] = row["image"][0]  # the form that MONAI's examples have
    with whole_file(path) as beside:
        text = json.dumps(content, indent=1, ensure_ascii=False)
        beside.write_text(text + "\n", encoding="utf-8")
    return path


def rebase(manifest: Manifest, folder: Path) -> Manifest:
    """The same manifest with its paths relative to another folder."""
    start, target = manifest.root.resolve(), folder.resolve()
    if start == target:
        return manifest.model_copy(update={"root": folder})

    def moved(name: str) -> str:
        return Path(os.path.relpath(start / name, target)).as_posix()

    def moved_case(case: Case) -> Case:
        return case.model_copy(
            update={
                "image": tuple(moved(name) for name in case.image),
                "label": None if case.label is None else moved(case.label),
                "sha256": {moved(name): value for name, value in case.sha256.items()},
            }
        )

    return manifest.model_copy(
        update={
            "root": folder,
            "training": tuple(moved_case(case) for case in manifest.training),
            "test": tuple(moved_case(case) for case in manifest.test),
        }
    )
