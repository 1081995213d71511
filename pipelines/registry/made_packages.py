"""Packages made here, of nnU-Net's results or of part models: kept in a folder, or registered."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.registry.loading import resolve_model
from pipelines.registry.reference import check_name
from pipelines.registry.registration import register_package
from segmed.errors import UsageError
from segmed.nnunet import package_of
from segmed.package import ModelPackage
from segmed.package.part_models import PartModel, join_parts


@dataclass(frozen=True)
class Keeping:
    """Name and place of a package that is to be made.

    Attributes:
        name: Name of the model.
        out: Folder to write; `name` if not given, unless the package is registered.
        register: Register the package as a version of the model.
        alias: Alias of that version.
    """

    name: str
    out: Path | None = None
    register: bool = False
    alias: str | None = None

    @property
    def place(self) -> Path | None:
        """Folder of the package; None for one that is only registered."""
        return self.out if self.out is not None or self.register else Path(self.name)

    def check(self) -> None:
        """Check name and place before anything is read.

        Raises:
            UsageError: The name is none, or something is at the place.
        """
        check_name(self.name)
        if self.place is not None and self.place.exists():
            raise UsageError(f"{self.place} exists already; choose another place with --out")

    def keep(self, package: ModelPackage) -> dict[str, Any]:
        """Write and register a package.

        Returns:
            Facts of the package and its place.
        """
        facts = _facts(package)
        if self.place is not None:
            facts["path"] = str(package.save(self.place))
        if self.register:
            with tempfile.TemporaryDirectory(prefix="segmed-made-") as scratch:
                kept = self.place or package.save(Path(scratch) / "package")
                version = register_package(kept, self.name, self.alias)
            facts["model"] = " ".join([version.reference, *version.aliases])
        return facts


def import_folder(
    source: Path,
    keeping: Keeping,
    *,
    folds: Sequence[str] = (),
    licence: str = "",
    postprocessing: bool = True,
) -> dict[str, Any]:
    """Make a package of a model that nnU-Net trained.

    Args:
        source: Folder or zip of nnU-Net results.
        keeping: Name and place.
        folds: Folds wanted; none for all.
        licence: Licence of the weights.
        postprocessing: Apply what nnU-Net found for these folds.

    Returns:
        Facts of the package and its place.

    Raises:
        UsageError: The name is none, a fold is not there, or the source has several models.
        PackageError: The source is not such a folder, is damaged, or does something not reproduced.
    """
    keeping.check()
    package = package_of(source, folds=folds, licence=licence, postprocessing=postprocessing)
    return keeping.keep(package)


def join_models(
    references: Sequence[str], keeping: Keeping, *, label_map: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Make one package of part models.

    Args:
        references: The models, in the order of their structures.
        keeping: Name and place.
        label_map: Label value by the name of each structure; 1, 2, ... in order if not given.

    Returns:
        Facts of the package and its place.

    Raises:
        UsageError: The name is none, a reference names nothing, or the models do not fit together.
        PackageError: A package is damaged.
    """
    keeping.check()
    models = [PartModel(text, resolve_model(text).load()) for text in references]
    return keeping.keep(join_parts(models, name=keeping.name, label_map=label_map))


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
