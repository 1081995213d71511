"""Structures and inputs of each model whose outputs an archive has, beside its ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from segmed.errors import UsageError
from segmed.io.atomic import write_whole
from segmed.structures import Frozen, LabelClass

STRUCTURES_FILE = "structures.json"
"""Structures and number of channels of each model, by its hash."""


class ModelStructures(Frozen):
    """Structures of the label maps of one model.

    Attributes:
        name: Name of the model, such as `unet hippocampus`.
        labels: The structures.
        num_channels: Input channels.
    """

    name: str = ""
    labels: tuple[LabelClass, ...]
    num_channels: int = 1


def note_structures(
    out_dir: Path, package: str, name: str, labels: Sequence[LabelClass], num_channels: int
) -> None:
    """Keep the structures of a model beside the ledger.

    Args:
        out_dir: Output folder of the archive.
        package: Hash of the model package.
        name: Name of the model.
        labels: Its structures.
        num_channels: Its input channels.
    """
    known = _stored(out_dir)
    record = ModelStructures(name=name, labels=tuple(labels), num_channels=num_channels)
    entry = record.model_dump(mode="json", exclude_none=True)
    if known.get(package) != entry:
        write_whole(out_dir / STRUCTURES_FILE, json.dumps({**known, package: entry}, indent=1))


def structures_of(out_dir: Path, package: str) -> ModelStructures:
    """Structures of the model that an output is from.

    Args:
        out_dir: Output folder of the archive.
        package: Hash of the model package.

    Raises:
        UsageError: They are not recorded, as by segmed before 0.1.1, or the record is damaged.
    """
    stored = _stored(out_dir).get(package)
    if stored is None:
        raise UsageError(
            f"{out_dir / STRUCTURES_FILE} lacks the structures of model {package[:12]}: run "
            "`segmed archive segment` with that model into this folder once more; what is done "
            "stays as it is"
        )
    try:
        return ModelStructures.model_validate(stored)
    except ValidationError as error:
        raise UsageError(f"{out_dir / STRUCTURES_FILE} is damaged; restore it") from error


def _stored(out_dir: Path) -> dict[str, object]:
    try:
        found = json.loads((out_dir / STRUCTURES_FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{out_dir / STRUCTURES_FILE} is not a JSON file; restore it") from error
    return found if isinstance(found, dict) else {}
