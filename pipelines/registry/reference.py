"""Model references, versions and contracts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.tracking.address import tracking_uri, without_password
from pipelines.tracking.tags import HASH_TAG
from segmed.errors import PackageError, UsageError
from segmed.package.card import checked_card, read_card
from segmed.plan import Plan

if TYPE_CHECKING:
    from segmed.package import ModelPackage

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Aliases of a model's versions: the one in use, its candidate successor, and the one before."""

LOCK_PREFIX = "segmed-lock--"
"""Names of registered models that are locks and no models begin with it."""

SCHEME = "models:"
"""Begin of references to registered models; everything else is a path."""

_NAMED = re.compile(r"(models:/)?(?P<name>[^/@:]+)(@(?P<selector>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class Resolved:
    """A model reference, resolved.

    Attributes:
        reference: As given by the user.
        path: Folder of the package on this machine.
        hash: Hash of the package.
        name: Registered name, where it comes from a registry.
        version: Its version there.
    """

    reference: str
    path: Path
    hash: str
    name: str | None = None
    version: str | None = None

    def load(self) -> ModelPackage:
        """The package, checked against its hash."""
        from segmed.package import ModelPackage  # noqa: PLC0415 - loads PyTorch

        return ModelPackage.load(self.path)

    def record(self) -> dict[str, str | None]:
        """Return the record of the model that every output carries."""
        return {
            "model": self.reference,
            "name": self.name,
            "version": self.version,
            "hash": self.hash,
        }


@dataclass(frozen=True)
class Version:
    """One registered version.

    Attributes:
        name: Registered name.
        version: Number, as text.
        hash: Hash of its package.
        aliases: Aliases that point at it.
        run_id: The run that made it.
        tags: All tags of the version.
        description: Its model card, as Markdown.
        registered: When, to the minute, UTC.
    """

    name: str
    version: str
    hash: str
    aliases: tuple[str, ...]
    run_id: str
    tags: Mapping[str, str]
    description: str = ""
    registered: str = ""

    @property
    def reference(self) -> str:
        """`models:/NAME/VERSION`."""
        return str(ModelName(self.name, self.version))


class ModelName(NamedTuple):
    """A registered model as a reference names it: `models:/NAME@alias` or `models:/NAME/3`.

    Attributes:
        name: Registered name.
        selector: Alias or version number.
    """

    name: str
    selector: str

    def __str__(self) -> str:
        """The reference."""
        return f"{SCHEME}/{self.short}"

    @property
    def short(self) -> str:
        """The reference without `models:/`, for titles."""
        return f"{self.name}{'/' if self.selector.isdigit() else '@'}{self.selector}"


def is_registered(reference: str) -> bool:
    """True if a reference names a registered model, by its scheme; else it is a path."""
    return reference.startswith(SCHEME)


def parse_reference(reference: str, *, needs_scheme: bool = True) -> ModelName:
    """The one parser of references to registered models.

    Args:
        reference: `models:/NAME@alias` or `models:/NAME/3`.
        needs_scheme: Refuse `NAME@alias` and `NAME/3`, which could be paths.

    Raises:
        UsageError: The text has another form.
    """
    match = _NAMED.fullmatch(reference)
    if match is None or (needs_scheme and not is_registered(reference)):
        raise UsageError(
            f"{reference!r} names no model: write models:/NAME@champion or models:/NAME/3"
        )
    return ModelName(match["name"], match["selector"] or match["version"])


def short_name(reference: str) -> str:
    """A reference for titles: `NAME@alias` or `NAME/3`, or the last part of a path."""
    match = _NAMED.fullmatch(reference) if is_registered(reference) else None
    return parse_reference(reference).short if match else Path(reference).name


def require_package(path: Path) -> None:
    """Refuse a path that is missing, or a folder without the files of a package.

    Raises:
        PackageError: It is.
    """
    if not path.exists():
        raise PackageError(
            f"{path} does not exist; give a package folder, a zip of one, or a registered model as "
            "models:/NAME@champion"
        )
    if path.is_dir():
        read_card(path)


def resolve_path(path: Path) -> Resolved:
    """A package folder or zip as a resolved reference; a zip is unpacked into the cache."""
    require_package(path)
    if path.is_dir():
        return Resolved(str(path), path.resolve(), checked_card(path)[0].hash)
    from pipelines.registry.cache import keep_package  # noqa: PLC0415 - loads PyTorch
    from segmed.package import ModelPackage  # noqa: PLC0415 - likewise

    package = ModelPackage.load(path)
    return Resolved(str(path), keep_package(package), package.hash)


def contract(plan: Plan) -> dict[str, Any]:
    """Return the contract: the properties that all versions of one model share."""
    return {
        "labels": [
            [label.name, label.value, *([list(label.region)] if label.region else [])]
            for label in plan.labels
        ],
        "channels": [[channel.name, channel.modality] for channel in plan.channels],
        "spacing_mm": [round(edge, 3) for edge in plan.preprocessing.spacing_mm],
        "orientation": plan.preprocessing.orientation,
        **({"scheme": plan.preprocessing.scheme} if plan.preprocessing.scheme != "segmed" else {}),
    }


PREPARATION = ("spacing_mm", "orientation", "scheme")
"""Parts of a contract that networks share only if segmed planned them all."""


def changes_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the parts in which a contract differs from that of an earlier version.

    Networks of nnU-Net prepare images by rules of their own. Where one of the two is such, labels
    and channels alone must agree: results of both are on the grid of the image.

    Args:
        before: Contract of the earlier version; empty where it has none.
        now: Contract of the new one.
    """
    is_foreign = "scheme" in before or "scheme" in now
    compared = [key for key in now if not (is_foreign and key in PREPARATION)]
    return [key for key in compared if before and before.get(key) != now[key]]


def contract_text(plan: Plan) -> str:
    """The contract as JSON, for a tag."""
    return json.dumps(contract(plan), sort_keys=True)


def check_name(name: str) -> None:
    """Refuse a name that references could not write.

    Raises:
        UsageError: The name has other characters than letters, digits, `.`, `_` and `-`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"model name {name!r}: use letters, digits, '.', '_' and '-' only")


def is_lock(name: str) -> bool:
    """Return whether a registered model is a lock and no model."""
    return name.startswith(LOCK_PREFIX)


def one_version(
    name: str, selector: str, known: Sequence[Version], names: Sequence[str]
) -> Version:
    """One of the versions of a model, by number or alias.

    Args:
        name: The model.
        selector: A version number or an alias.
        known: All versions of the model.
        names: All models, for the message where it has no version.

    Raises:
        UsageError: There is none.
    """
    for entry in known:
        if selector == entry.version or selector in entry.aliases:
            return entry
    if not known:
        listed = ", ".join(names) or "none"
        where = without_password(tracking_uri(Path()))
        raise UsageError(
            f"no model {name!r} is registered in {where}: known are {listed}; run this in the "
            "folder of that database, or name another by MLFLOW_TRACKING_URI"
        )
    have = sorted({*(v.version for v in known), *(a for v in known for a in v.aliases)})
    raise UsageError(f"model {name!r} has no {selector!r}: known are {', '.join(have)}")


def version_record(entry: Any, aliases: Mapping[str, str] | None = None) -> Version:
    """A version from MLflow's record of it and from the aliases of its model."""
    mine = sorted(a for a, number in (aliases or {}).items() if number == str(entry.version))
    return Version(
        entry.name,
        str(entry.version),
        str(entry.tags.get(HASH_TAG, "")),
        tuple(mine),
        str(entry.run_id or ""),
        dict(entry.tags),
        str(entry.description or ""),
        _minute(entry.creation_timestamp),
    )


def _minute(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")
