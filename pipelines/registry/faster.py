"""Faster models of any reference: a folder in place or elsewhere, or a new version."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.registry.cache import converted_folder
from pipelines.registry.loading import resolve_model
from pipelines.registry.reference import Version, is_registered, parse_reference, resolve_path
from pipelines.registry.registration import register_package
from segmed.acceleration import Quantised, fewer_windows, quantise
from segmed.acceleration.quantising import QuantisationRequest
from segmed.errors import UsageError
from segmed.manifest import Case, read_manifest
from segmed.package import ModelPackage

Report = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Place of a package that is made from another.

    Attributes:
        reference: Folder, zip, or registered model that it is made from.
        out: Folder to write; None replaces a package folder, or registers a new version.
        alias: Alias of the new version.
        folder: Working folder, for the embedded registry.
    """

    reference: str
    out: Path | None = None
    alias: str | None = None
    folder: Path = Path()

    def require_clear(self) -> None:
        """Check that there is a place.

        Raises:
            UsageError: A zip has no `out`, or an alias has no version.
        """
        is_version = is_registered(self.reference)
        if self.out is None and not is_version and not Path(self.reference).is_dir():
            raise UsageError(f"{self.reference} is not a folder: give the folder to write by --out")
        if self.alias is not None and (not is_version or self.out is not None):
            raise UsageError(
                "--alias is for a registered model without --out, which gets a version"
            )

    def load(self) -> ModelPackage:
        """The package that the reference names."""
        return resolve_model(self.reference, folder=self.folder).load()

    def keep(self, package: ModelPackage) -> str:
        """Write or register the changed package; returns its folder or reference.

        It has another hash, since its results are others: a registered model gets a version.
        """
        if self.out is None and is_registered(self.reference):
            name = parse_reference(self.reference).name
            return _registered(package, name, self.alias, self.folder).reference
        return str(package.save(self.out or Path(self.reference)))


@dataclass(frozen=True)
class QuantisationResult:
    """Outcome of a quantisation and the place of the package.

    Attributes:
        quantised: The package and the networks that were tried.
        place: Folder or version with the int8 network; None if it was refused.
        float32_hash: Hash of the model in float32.
    """

    quantised: Quantised
    place: str | None
    float32_hash: str

    def record(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {
            "accepted": self.quantised.is_accepted,
            "model": self.place,
            "hash": self.quantised.package.hash if self.quantised.is_accepted else None,
            "float32_hash": self.float32_hash,
            "attempts": [attempt.record() for attempt in self.quantised.attempts],
        }


def quantise_model(
    place: Place, manifest: Path, request: QuantisationRequest, *, report: Report | None = None
) -> QuantisationResult:
    """Quantise a model, and keep the int8 network with its package if it is accepted.

    Args:
        place: The model, and the place of the result.
        manifest: Manifest of the training and held-out cases.
        request: Cases, windows and limits.
        report: Called with a sentence at each step.

    Raises:
        UsageError: The reference names nothing, there is no place, or the cases cannot be used.
        PackageError: The package is damaged.
    """
    place.require_clear()
    package = place.load()
    found = quantise(
        package, read_manifest(manifest), request, cache_dir=converted_folder(), report=report
    )
    kept = place.keep(found.package) if found.is_accepted else None
    return QuantisationResult(found, kept, package.float32_hash)


def register_quantised(
    package_dir: Path,
    name: str,
    alias: str | None,
    manifest: Path,
    request: QuantisationRequest,
    *,
    report: Report | None = None,
    folder: Path = Path(),
) -> tuple[Version, QuantisationResult]:
    """Register a package with its int8 network, or in float32 where that is refused.

    Args:
        package_dir: Folder or zip of the package, which stays as it is.
        name: Registered name.
        alias: Alias to give the version.
        manifest: As for `quantise_model`, like the rest.
        request: Cases, windows and limits.
        report: Called with a sentence at each step.
        folder: Working folder, for the embedded registry.
    """
    package = resolve_path(package_dir).load()
    found = quantise(
        package, read_manifest(manifest), request, cache_dir=converted_folder(), report=report
    )
    version = _registered(found.package, name, alias, folder)
    return version, QuantisationResult(found, version.reference, package.float32_hash)


def _registered(package: ModelPackage, name: str, alias: str | None, folder: Path) -> Version:
    with tempfile.TemporaryDirectory(prefix="segmed-faster-") as scratch:
        made = package.save(Path(scratch) / "package")
        return register_package(made, name, alias, folder=folder)


def model_with_fewer_windows(
    place: Place,
    manifest: Path,
    *,
    fold: int | None = None,
    cases: Sequence[Case] | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Try fewer windows for a model, and keep the changed package if a setting is accepted.

    Args:
        place: The model, and the place of the result.
        manifest: Manifest of the held-out cases.
        fold: Fold whose cases are held out; the one of the training, if left out.
        cases: Held-out cases instead.
        report: Called with a sentence at each step.

    Returns:
        The outcome as JSON values.

    Raises:
        UsageError: The reference names nothing, there is no place, or the cases cannot be used.
        PackageError: The package is damaged.
    """
    place.require_clear()
    package = place.load()
    found = fewer_windows(
        package,
        read_manifest(manifest),
        fold=fold,
        cases=cases,
        cache_dir=converted_folder(),
        report=report,
    )
    return {
        "accepted": found.is_changed,
        "model": place.keep(found.package) if found.is_changed else None,
        "hash": found.package.hash,
        "hash_before": package.hash,
        "lost_int8": found.is_changed and package.accepted_int8 is not None,
        "trials": [trial.record() for trial in found.trials],
    }
