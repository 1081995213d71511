"""Check a package without loading it: its weights are read in pieces, whatever their size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segmed.errors import PackageError
from segmed.package.card import NUMBER_TYPES, WEIGHTS_FILE, checked_card
from segmed.package.int8 import INT8_FILE, Int8Network
from segmed.package.model_package import ModelPackage


class TensorsOnDisk(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read on request and not kept.

    Args:
        path: The file.

    Raises:
        PackageError: It is not a safetensors file, or has an unknown number type.
    """

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt"):  # judges the header: bounds, overlaps, sizes
                pass
        except SafetensorError as error:
            raise PackageError(f"{path} is damaged: {error}") from error
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        self._path, self._start = path, 8 + length
        self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        for name, entry in self._entries.items():
            if entry["dtype"] not in NUMBER_TYPES:
                raise PackageError(f"{path}: {name} has numbers of type {entry['dtype']!r}")

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor."""
        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        kind = getattr(torch, NUMBER_TYPES[entry["dtype"]].removeprefix("torch."))
        shape = entry["shape"]
        if math.prod(shape) == 0:
            return torch.empty(shape, dtype=kind)
        buffer = bytearray(end - begin)
        with self._path.open("rb") as stream:
            stream.seek(self._start + begin)
            stream.readinto(buffer)
        return torch.frombuffer(buffer, dtype=kind).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        """Names, in the order of the file's header."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._entries)


def check_package(folder: Path) -> ModelPackage:
    """A package folder, checked as `ModelPackage.load` does, its tensors left on disk.

    Memory is bounded by the largest tensor and the int8 network, not by the file of weights.

    Args:
        folder: The package folder; it must stay as it is while the result is used.

    Raises:
        PackageError: A file is missing, damaged, a pickle, or of another schema version.
    """
    card, (plan, *further) = checked_card(folder)
    state = TensorsOnDisk(folder / WEIGHTS_FILE)
    architecture, options, members, parts = card.head
    int8 = None if card.int8 is None else Int8Network(card.int8, (folder / INT8_FILE).read_bytes())
    provenance, plans = card.provenance, tuple(further)
    return ModelPackage(architecture, options, plan, state, provenance, members, parts, int8, plans)
