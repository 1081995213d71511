"""The card of a package, and the identity of what it computes: read and checked without PyTorch."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from safetensors import SafetensorError, safe_open

from segmed.errors import PackageError, UsageError
from segmed.io.valid_text import require_valid_text
from segmed.manifest.content import digest
from segmed.package.int8 import (
    INT8_FILE,
    MAX_INT8_BYTES,
    Int8Record,
    hash_with_int8,
    require_int8,
)
from segmed.package.upgrade import upgraded
from segmed.plan import Plan, plan_hash, read_plan
from segmed.quality.identity import hash_with_quality
from segmed.structures import Channel, Frozen, LabelClass
from segmed.validation import first_fault

HASH_FORM = 1
"""Version of what enters the hash; another one would make every package a stranger."""

NUMBER_TYPES = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "I64": "torch.int64",
    "I32": "torch.int32",
    "I16": "torch.int16",
    "I8": "torch.int8",
    "U8": "torch.uint8",
    "BOOL": "torch.bool",
}
"""PyTorch's number types by their names in safetensors."""

WEIGHTS_FILE = "model.safetensors"
PLAN_FILE = "plan.yaml"
CARD_FILE = "package.json"
FILES = (WEIGHTS_FILE, PLAN_FILE, CARD_FILE)
"""Files of every package; one with an int8 network has `INT8_FILE` too."""

PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy")
"""Files that may run code when they are loaded; a package contains none."""

MOST_PLANS = 4
"""Plans of one package at most."""

FURTHER_PLAN_FILES = tuple(f"plan-{number}.yaml" for number in range(2, MOST_PLANS + 1))
"""Files of the plans after the first, of packages whose networks have several."""

MAX_TEXT_BYTES = 16 * 2**20
"""Largest plan or card that is read, in bytes."""

MAX_WEIGHTS_BYTES = 16 * 2**30
"""Largest weight file that is read, in bytes."""

LIMITS = {
    WEIGHTS_FILE: MAX_WEIGHTS_BYTES,
    PLAN_FILE: MAX_TEXT_BYTES,
    CARD_FILE: MAX_TEXT_BYTES,
    INT8_FILE: MAX_INT8_BYTES,
    **dict.fromkeys(FURTHER_PLAN_FILES, MAX_TEXT_BYTES),
}
"""Each file of a package, and the most bytes of it that are read."""


class PackagePart(Frozen):
    """Networks of one form in a package that averages architectures or plans, or joins part models.

    Attributes:
        architecture: Name that `build_model` accepts.
        options: Its keyword options.
        members: Networks of this form.
        structures: Of a part model: how many of the package's structures it segments, in their
            order; None where every network segments all of them.
        view: Of a part model: which intensities of the plan its channels have, the first are 0.
        plan: Number of their plan: 0 for the package's own, else a further one.
    """

    architecture: str
    options: dict[str, Any] = Field(default_factory=dict)
    members: PositiveInt = 1
    structures: PositiveInt | None = None
    view: NonNegativeInt = 0
    plan: Annotated[int, Field(ge=0, lt=MOST_PLANS)] = 0

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields that a part does not use: older hashes stay as they were."""
        fields: dict[str, Any] = serialize(self)
        if self.plan == 0:
            fields.pop("plan", None)
        if self.structures is None:
            fields.pop("structures", None)
            fields.pop("view", None)
        return fields


class Card(Frozen):
    """Content of `package.json`.

    Attributes:
        schema_version: Version of the package's form.
        architecture: Name that `build_model` accepts; several joined by `+`.
        options: Its keyword options; none where there are several architectures.
        spatial_dims: 2 or 3, for people and registries; the plan decides.
        channels: Input channels, likewise.
        labels: Structures with their codes, likewise.
        provenance: Training data hash, commit, versions, seed, metrics.
        files: Hex sha256 of each other file.
        hash: Identity of what the package computes, see `ModelPackage.hash`.
        segmed: Version of segmed that wrote the package; empty where that is not known.
        members: How many networks are averaged.
        parts: The architectures, where there are several.
        int8: Acceptance record of the int8 network, if there is one.
    """

    schema_version: int
    architecture: str
    options: dict[str, Any]
    spatial_dims: int
    channels: tuple[Channel, ...]
    labels: tuple[LabelClass, ...]
    provenance: dict[str, Any]
    files: dict[str, str]
    hash: str
    segmed: str
    members: PositiveInt = 1
    parts: tuple[PackagePart, ...] = ()
    int8: Int8Record | None = None

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out parts and int8 where there are none: such cards stay as they were."""
        fields: dict[str, Any] = serialize(self)
        for name in ("parts", "int8"):
            if not getattr(self, name):
                fields.pop(name, None)
        return fields

    @model_validator(mode="after")
    def _with_a_part_for_each_plan(self) -> Self:
        used = {part.plan for part in self.parts} or {0}
        if used != set(range(len(used))):
            raise ValueError(f"parts have the plans {sorted(used)}; they are numbered from 0")
        return self

    @property
    def further_plans(self) -> tuple[str, ...]:
        """Files of the plans after the first."""
        return FURTHER_PLAN_FILES[: max((part.plan for part in self.parts), default=0)]

    @property
    def file_names(self) -> tuple[str, ...]:
        """Files of this package."""
        names = (*FILES, *self.further_plans)
        return names if self.int8 is None else (*names, INT8_FILE)

    @property
    def head(self) -> tuple[str, dict[str, Any], int, tuple[PackagePart, ...]]:
        """Form of the networks: architecture, options, members and parts."""
        return self.architecture, self.options, self.members, self.parts


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it enters the identity of a package.

    Attributes:
        name: Its name.
        dtype: PyTorch's name of its number type.
        shape: Its shape.
        content: Its bytes, row by row, little endian.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: bytes | memoryview


def identity(head: list[Any], tensors: Iterable[StoredTensor]) -> str:
    """Hex sha256 of what a package computes.

    Args:
        head: See `identity_head`.
        tensors: All tensors, sorted by name.
    """
    found = hashlib.sha256()
    found.update(json.dumps(head, sort_keys=True).encode())
    for tensor in tensors:
        found.update(f"|{tensor.name}|{tensor.dtype}|{tensor.shape}|".encode())
        found.update(tensor.content)
    return found.hexdigest()


def identity_head(
    architecture: str,
    options: Mapping[str, Any],
    plan: Plan,
    members: int,
    parts: Sequence[PackagePart] = (),
    plans: Sequence[Plan] = (),
) -> list[Any]:
    """Return the part of a package's identity that precedes its tensors."""
    head = [HASH_FORM, architecture, plain_values(options), plan_hash(plan)]
    several = [[plain_values(part.model_dump()) for part in parts]] if parts else []
    further = [[plan_hash(other) for other in plans]] if plans else []
    return head + ([members] if members > 1 else []) + several + further


def checked_card(folder: Path) -> tuple[Card, tuple[Plan, ...]]:
    """Card and plans of a package folder, all files checked as `ModelPackage.load` does.

    Raises:
        PackageError: A file is missing, damaged, a pickle, or of another schema version.
    """
    card = read_card(folder)
    names = (PLAN_FILE, *card.further_plans)
    for name in (WEIGHTS_FILE, *names):
        require_size(folder / name, LIMITS[name])
        if digest(folder / name) != card.files.get(name):
            raise sha256_differs(folder / name)
    plans = read_plans(folder, names)
    architecture, options, members, parts = card.head
    head = identity_head(architecture, options, plans[0], members, parts, plans[1:])
    found = identity(head, stored_tensors(folder / WEIGHTS_FILE))
    if card.int8 is not None:
        require_size(folder / INT8_FILE, MAX_INT8_BYTES)
        require_int8(card.int8, digest(folder / INT8_FILE), found, str(folder))
        found = hash_with_int8(found, card.int8)
    found = hash_with_quality(found, card.provenance)
    if found != card.hash:
        raise hash_differs(folder, card, found)
    return card, plans


def read_plans(folder: Path, names: Sequence[str]) -> tuple[Plan, ...]:
    """The plans of a package folder.

    Raises:
        PackageError: One is damaged.
    """
    try:
        return tuple(read_plan(folder / name) for name in names)
    except UsageError as error:
        raise PackageError(f"{folder} is damaged: {error}") from error


def stored_tensors(path: Path) -> list[StoredTensor]:
    """The tensors of a safetensors file, sorted by name.

    Raises:
        PackageError: It is not a safetensors file, or has an unknown number type.
    """
    try:
        with safe_open(path, framework="np"):  # judges the header: bounds, overlaps, sizes
            pass
    except SafetensorError as error:
        raise PackageError(f"{path} is damaged: {error}") from error
    with path.open("rb") as stream:
        content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    begin = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(bytes(content[8:begin]))
    found = []
    for name, entry in sorted(header.items()):
        if name == "__metadata__":
            continue
        if entry["dtype"] not in NUMBER_TYPES:
            raise PackageError(f"{path}: {name} has numbers of type {entry['dtype']!r}")
        first, last = entry["data_offsets"]
        piece = content[begin + first : begin + last]
        found.append(StoredTensor(name, NUMBER_TYPES[entry["dtype"]], tuple(entry["shape"]), piece))
    return found


def hash_differs(folder: Path, card: Card, found: str) -> PackageError:
    """The error for a card whose hash is not that of its package."""
    return PackageError(
        f"{folder / CARD_FILE} was changed after it was written: its hash is "
        f"{card.hash[:12]}, the content's is {found[:12]}; fetch the package anew"
    )


def read_card(folder: Path) -> Card:
    """The card of a package folder, once it is sure that no file in it is missing or a pickle."""
    pickles = [p.name for p in folder.iterdir() if p.suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        raise PackageError(
            f"{folder} contains {pickles[0]}, which may be a pickle; a package contains only "
            + ", ".join(FILES)
        )
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise PackageError(f"{folder} is not a package: {missing[0]} is missing")
    try:
        content = json.loads(bounded_bytes(folder / CARD_FILE, MAX_TEXT_BYTES))
        require_valid_text(content)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{folder / CARD_FILE} is damaged: {error}") from error
    try:
        card = Card.model_validate(upgraded(content, str(folder)))
    except ValidationError as error:
        raise PackageError(f"{folder / CARD_FILE}: {first_fault(error)}") from error
    for name in card.file_names:
        if not (folder / name).is_file():
            raise PackageError(
                f"{folder} is not complete: {name} is missing, which its card names; copy all "
                "files of the package"
            )
    return card


def sha256_differs(path: Path) -> PackageError:
    """The error for a file that is not the one that its card names."""
    return PackageError(
        f"{path} is not the file that was written (its sha256 differs from that in {CARD_FILE}); "
        "fetch the package anew"
    )


def bounded_bytes(path: Path, limit: int) -> bytes:
    """The content of a file, unless it is larger than a package's may be."""
    require_size(path, limit)
    return path.read_bytes()


def require_size(path: Path, limit: int) -> None:
    """Refuse a file of a package that is larger than any may be."""
    size = path.stat().st_size
    if size > limit:
        raise PackageError(f"{path} has {size} bytes; a package's file has at most {limit}")


def plain_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of a mapping, tuples as lists.

    Raises:
        PackageError: A value has no JSON form.
    """
    try:
        plain = json.loads(json.dumps(dict(content), sort_keys=True))
    except TypeError as error:
        raise PackageError(f"a package contains JSON values only: {error}") from error
    assert isinstance(plain, dict)
    return plain
