"""Configuration of a MONAI bundle as plain values: references are followed, nothing is executed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segmed.errors import PackageError
from segmed.package.card import MAX_TEXT_BYTES, bounded_bytes

CONFIGS = ("inference.json", "inference.yaml", "inference.yml")
"""Names of the configuration that is read."""

MAX_DEPTH = 32
"""Longest chain of references in a configuration."""

WITHOUT_EFFECT = frozenset(
    {
        "CastToTyped",
        "CopyItemsd",
        "DeleteItemsd",
        "EnsureChannelFirstd",
        "EnsureTyped",
        "Invertd",
        "LoadImaged",
        "SaveImaged",
        "ToDeviced",
        "ToTensord",
    }
)
"""Steps that a package has anyway, or that change no values."""


@dataclass(frozen=True)
class BundleConfig:
    """Configuration of a bundle as plain values.

    Attributes:
        content: Entries of the inference configuration.
        metadata: Entries of `metadata.json`.
    """

    content: Mapping[str, Any]
    metadata: Mapping[str, Any]

    def entry(self, name: str, otherwise: Any = None) -> Any:
        """Return an entry with its references to other entries replaced.

        Raises:
            PackageError: It has an expression, or a reference to nothing.
        """
        return self.plain(self.content[name], name) if name in self.content else otherwise

    def first(self, names: Sequence[str]) -> Any:
        """Return the first of some entries that there is.

        Raises:
            PackageError: There is none of them.
        """
        for name in names:
            if name in self.content:
                return self.entry(name)
        raise PackageError(f"the bundle's configuration has none of {', '.join(names)}")

    def steps(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and arguments of each step of a chain; those without an effect are left out.

        Args:
            name: Entry of the chain, a `Compose`.

        Raises:
            PackageError: The entry is not a chain, or a step has an expression.
        """
        chain = self.content.get(name, {"transforms": []})
        listed = chain.get("transforms") if isinstance(chain, dict) else None
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise PackageError(f"{name} of the bundle must be a Compose of listed transforms")
        for number, one in enumerate(listed):
            target = str(one.get("_target_", "")).rpartition(".")[2]
            if target in WITHOUT_EFFECT or one.get("_disabled_") is True:
                continue  # its arguments may be expressions; they have no effect here
            made = self.plain(one, f"{name}.transforms.{number}")
            yield target, {key: value for key, value in made.items() if key[:1] != "_"}

    def plain(self, value: Any, where: str, depth: int = 0) -> Any:
        """Return a value with its references replaced.

        Args:
            value: Part of the content.
            where: Its place, for messages.
            depth: References and levels above it.

        Raises:
            PackageError: It has an expression, or a reference to nothing.
        """
        if depth > MAX_DEPTH:
            raise PackageError(f"{where} of the bundle refers to itself")
        if isinstance(value, dict):
            return {key: self.plain(one, f"{where}.{key}", depth + 1) for key, one in value.items()}
        if isinstance(value, list):
            return [self.plain(one, f"{where}.{n}", depth + 1) for n, one in enumerate(value)]
        if isinstance(value, str) and value.startswith("$"):
            raise PackageError(
                f"{where} of the bundle is an expression, {value[:60]!r}, and is not executed: "
                "write the value there"
            )
        if isinstance(value, str) and value.startswith("@"):
            return self.plain(self._referred(value, where), where, depth + 1)
        return value

    def _referred(self, reference: str, where: str) -> Any:
        found: Any = self.content
        for key in reference[1:].replace("#", "::").split("::"):
            is_list = isinstance(found, list)
            try:
                found = found[int(key)] if is_list else found[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise PackageError(
                    f"{where} of the bundle refers to {reference!r}, which it does not have"
                ) from None
        return found


def read_config(folder: Path) -> BundleConfig:
    """Read the configuration of a bundle as plain values.

    Raises:
        PackageError: A file is missing, or is not a mapping.
    """
    inference = first_of(folder / "configs", CONFIGS, "configuration")
    metadata = first_of(folder / "configs", ("metadata.json",), "metadata")
    return BundleConfig(_mapping(inference), _mapping(metadata))


def first_of(folder: Path, names: Sequence[str], what: str) -> Path:
    """Return the first of some files that a folder has.

    Raises:
        PackageError: It has none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise PackageError(
        f"the bundle has no {what}: {folder} has none of {', '.join(names)}; unpack a zipped "
        "bundle, and give its folder"
    )


def _mapping(path: Path) -> Mapping[str, Any]:
    text = bounded_bytes(path, MAX_TEXT_BYTES)
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise PackageError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise PackageError(f"{path} must be a mapping of names to values")
    return content
