"""From a folder of nnU-Net results to a package folder, and to a registered version."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.registry.reference import check_name
from pipelines.registry.registration import register_package
from segmed.errors import UsageError
from segmed.nnunet import package_of
from segmed.package import ModelPackage


def import_folder(
    source: Path,
    name: str,
    *,
    folds: Sequence[str] = (),
    licence: str = "",
    out: Path | None = None,
    register: bool = False,
    alias: str | None = None,
    postprocessing: bool = True,
) -> dict[str, Any]:
    """Make a package of a model that nnU-Net trained.

    Args:
        source: Folder or zip of nnU-Net results.
        name: Name of the model.
        folds: Folds wanted; none for all.
        licence: Licence of the weights.
        out: Folder to write; `name` if not given, unless the package is registered.
        register: Register the package as a version of the model.
        alias: Alias of that version.
        postprocessing: Apply what nnU-Net found for these folds.

    Returns:
        Facts of the package and its place.

    Raises:
        UsageError: The name is none, a fold is not there, or the source has several models.
        PackageError: The source is not such a folder, is damaged, or does something not reproduced.
    """
    check_name(name)
    place = out if out is not None or register else Path(name)
    if place is not None and place.exists():
        raise UsageError(f"{place} exists already; choose another place with --out")
    package = package_of(source, folds=folds, licence=licence, postprocessing=postprocessing)
    facts = _facts(package)
    if place is not None:
        facts["path"] = str(package.save(place))
    if register:
        with tempfile.TemporaryDirectory(prefix="segmed-nnunet-") as scratch:
            kept = place or package.save(Path(scratch) / "package")
            version = register_package(kept, name, alias)
        facts["model"] = " ".join([version.reference, *version.aliases])
    return facts


def _facts(package: ModelPackage) -> dict[str, Any]:
    plan = package.plan
    groups = plan.inference.keep_largest_together
    return {
        "path": "",
        "model": "",
        "hash": package.hash,
        "members": package.members,
        "labels": {label.name: label.value for label in plan.labels},
        "tta": plan.inference.tta,
        "postprocessing": "; ".join(
            f"largest component of {', '.join(map(str, values))}" for values in groups
        ),
        "provenance": {key: value for key, value in package.provenance.items() if key != "members"},
    }
