"""Checks of a command's arguments that need none of the libraries that the command needs.

Called first in a command: a wrong path is answered at once, and not after PyTorch has been loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmed.errors import UsageError, unknown_name

MaxVoxelsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Voxels of the largest image to read, if more than 536870912 are trusted."
    ),
]

PromiseOption = Annotated[
    str | None,
    typer.Option(
        "--promise",
        metavar="TERMS",
        help="Promise about results without review, tested on the held-out cases: "
        "dice=0.8,risk=5%,review=10%,confidence=95% unless given; any of the terms. Choose it "
        "before you see results.",
    ),
]

if TYPE_CHECKING:
    from segmed.quality.risk import RiskTarget


def promised(terms: str | None) -> RiskTarget:
    """The promise of `--promise`; the default one if it is not given.

    Raises:
        UsageError: A term is unknown or out of range.
    """
    from segmed.quality.risk import DEFAULT_TARGET, RiskTarget

    return DEFAULT_TARGET if terms is None else RiskTarget.parse(terms)


def allow_voxels(number: int | None) -> None:
    """Let this command and its worker processes read images of so many voxels."""
    if number is not None:
        os.environ["SEGMED_MAX_VOXELS"] = str(number)


def require_manifest(path: Path) -> None:
    """Refuse a manifest that is missing, damaged or of another schema.

    Raises:
        ManifestError: As `segmed.manifest.read_manifest`.
    """
    from segmed.manifest import read_manifest

    read_manifest(path)


def require_archive(out: Path) -> None:
    """Refuse a folder that no archive has been segmented into.

    Raises:
        UsageError: It has no ledger.
    """
    from segmed.io.results import LEDGER

    if not (out / LEDGER).is_file():
        raise UsageError(
            f"no ledger {out / LEDGER}: has an archive been segmented into this folder?"
        )


def require_models_or_results(references: Sequence[str]) -> None:
    """Refuse references as `require_models` does, but for folders that are no packages.

    Those are taken for nnU-Net results, which are read later.
    """
    folders = {one for one in references if Path(one).is_dir()}
    packages = {one for one in folders if (Path(one) / "package.json").is_file()}
    require_models([one for one in references if one not in folders - packages])


def require_models(references: Sequence[str]) -> None:
    """Refuse references that name no package and no registered model.

    A registry that is a server is not asked here.

    Raises:
        UsageError: A reference has no form of one, or names nothing in the embedded registry.
        PackageError: A path does not exist, or is a folder that is not a package.
    """
    from pipelines.registry.embedded import registered_versions
    from pipelines.registry.reference import (
        is_registered,
        one_version,
        parse_reference,
        require_package,
    )
    from pipelines.tracking.address import tracking_uri

    for reference in references:
        if not is_registered(reference):
            require_package(Path(reference))
            continue
        name, selector = parse_reference(reference)
        found = registered_versions(tracking_uri(Path()))
        if found is not None:
            one_version(name, selector, found.get(name, ()), list(found))


def require_any(paths: Sequence[Path], what: str) -> None:
    """Refuse paths none of which exists; of several that exist in part each is reported later.

    Raises:
        UsageError: None of them exists.
    """
    if paths and not any(path.exists() for path in paths):
        raise UsageError(f"{paths[0]} does not exist; give {what}")


def require_folder(path: Path, what: str) -> None:
    """Require a folder.

    Raises:
        UsageError: The path does not exist, or is a file.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist; give {what}")
    if not path.is_dir():
        raise UsageError(f"{path} is a file; give {what}")


def require_file(path: Path | None, option: str) -> None:
    """Refuse an option that names a file which is not there.

    Raises:
        UsageError: There is no such file.
    """
    if path is not None and not path.is_file():
        raise UsageError(f"{option} {path}: there is no such file")


def require_source(source: str) -> None:
    """Refuse an archive that is neither an address nor a folder.

    Raises:
        UsageError: The folder does not exist.
    """
    if "://" not in source:
        require_folder(Path(source), "a folder, dicomweb://HOST/PATH or dimse://HOST:PORT")


def require_out(path: Path) -> None:
    """Refuse an output folder that is a file.

    Raises:
        UsageError: It is a file.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {path} is a file; give a folder")


def require_out_file(path: Path, example: str, option: str = "--out") -> None:
    """Refuse an output file that is a folder.

    Raises:
        UsageError: It is a folder.
    """
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder; give a file, such as {path / example}")


def require_device(name: str) -> None:
    """Require the name of a device.

    Raises:
        UsageError: The name is invalid.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UsageError(f"unknown device {name!r}: known are auto, cpu, cuda, cuda:N")


def require_devices(names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of devices, each given by itself or several with commas between them.

    Raises:
        UsageError: One is not a name of a device.
    """
    found = tuple(part.strip() for name in names or () for part in name.split(","))
    for name in found:
        require_device(name)
    return found


def require_known(kind: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is not among those known.

    Raises:
        UsageError: It is not.
    """
    if name not in known:
        raise unknown_name(kind, name, known)
