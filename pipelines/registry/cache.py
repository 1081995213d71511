"""Cache of fetched packages, by hash, for use also while the server is away."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segmed.errors import PackageError
from segmed.io.atomic import flush_tree, write_whole
from segmed.package.card import checked_card

if TYPE_CHECKING:
    from segmed.package import ModelPackage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """Last known resolution of a reference.

    Attributes:
        name: Registered model.
        version: Version number, as text.
        hash: Hash of its package.
        run_id: Run whose artifacts contain the package.
    """

    name: str
    version: str
    hash: str
    run_id: str


def cache_folder() -> Path:
    """`SEGMED_CACHE` if set, else `segmed` in the user's cache folder."""
    named = os.environ.get("SEGMED_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segmed"


def converted_folder() -> Path:
    """Return the folder of networks converted for OpenVINO."""
    return cache_folder() / "converted"


def cached_package(package_hash: str, fetch: Callable[[Path], Path]) -> Path:
    """The folder of a package in the cache, fetched where it is not there or was damaged since.

    Args:
        package_hash: Hash that the package must have.
        fetch: Puts the package into a given empty folder and returns its path.

    Raises:
        PackageError: What was fetched is damaged, or has another hash.
    """
    place = cache_folder() / "packages" / package_hash
    if _is_sound(place, package_hash):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetch-") as scratch:
        package = fetch(Path(scratch))
        found = checked_card(package)[0].hash
        if found != package_hash:
            raise PackageError(
                f"the package has hash {found[:12]}, the registry has {package_hash[:12]}; "
                "one of them was changed: register the model again"
            )
        if place.exists():  # damaged
            place.rename(Path(scratch) / "damaged")
        flush_tree(package)
        try:
            package.rename(place)
        except OSError:  # another process was faster
            if not _is_sound(place, package_hash):
                raise
    return place


def _is_sound(place: Path, package_hash: str) -> bool:
    if not place.exists():
        return False
    try:
        return checked_card(place)[0].hash == package_hash
    except PackageError as error:
        logger.warning("the copy in the cache is fetched anew: %s", error)
        return False


def keep_package(package: ModelPackage) -> Path:
    """Put a package that is at hand into the cache."""

    def fetch(scratch: Path) -> Path:
        return package.save(scratch / "package")

    return cached_package(package.hash, fetch)


def remember(uri: str, reference: str, known: Known) -> None:
    """Note what a reference means now."""
    path = _references_path()
    entries = _entries(path)
    entries[f"{uri} {reference}"] = asdict(known)
    write_whole(path, json.dumps(entries, indent=1))


def recall(uri: str, reference: str) -> Known | None:
    """Return the last known resolution of a reference."""
    entry = _entries(_references_path()).get(f"{uri} {reference}")
    return None if entry is None else Known(**entry)


def _references_path() -> Path:
    return cache_folder() / "references.json"


def _entries(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    loaded: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
