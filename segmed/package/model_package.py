"""A model that can be used: weights, plan and provenance in one folder, none of it executed.

```
package/
├── model.safetensors   the tensors
├── plan.yaml           the plan, with its reasons
└── package.json        architecture, options, provenance, and the sha256 of the other two
```

The digests find damage and careless edits; they are no signature: who can rewrite a package can
rewrite its digests too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from segmed import __version__
from segmed.errors import PackageError, UsageError, WeightsError
from segmed.models import build_model
from segmed.models.averaged import AveragedNetworks
from segmed.package.upgrade import SCHEMA_VERSION, upgraded
from segmed.package.zipped import unpack
from segmed.plan import Plan, plan_hash, read_plan, write_plan
from segmed.structures import Channel, Frozen, LabelClass

HASH_FORM = 1
"""Version of what enters the hash; another one would make every package a stranger."""

WEIGHTS_FILE = "model.safetensors"
PLAN_FILE = "plan.yaml"
CARD_FILE = "package.json"
FILES = (WEIGHTS_FILE, PLAN_FILE, CARD_FILE)

PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy")
"""Files that may run code when they are loaded; a package holds none."""

MAX_TEXT_BYTES = 16 * 2**20
"""Largest plan or card that is read, in bytes."""

MAX_WEIGHTS_BYTES = 16 * 2**30
"""Largest weight file that is read, in bytes."""

LIMITS = {
    WEIGHTS_FILE: MAX_WEIGHTS_BYTES,
    PLAN_FILE: MAX_TEXT_BYTES,
    CARD_FILE: MAX_TEXT_BYTES,
}
"""Each file of a package, and the most bytes of it that are read."""


class Card(Frozen):
    """What `package.json` holds.

    Attributes:
        schema_version: Version of the package's form.
        architecture: Name that `build_model` knows.
        options: Its keyword options.
        spatial_dims: 2 or 3, for people and registries; the plan decides.
        channels: Input channels, likewise.
        labels: Structures with their codes, likewise.
        provenance: Training data hash, commit, versions, seed, metrics.
        files: Hex sha256 of each other file.
        hash: Identity of what the package computes, see `ModelPackage.hash`.
        segmed: Version of segmed that wrote the package; empty where that is not known.
        members: How many networks are averaged.
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


@dataclass(frozen=True)
class ModelPackage:
    """A trained network with everything that is needed to use it.

    Attributes:
        architecture: Name that `build_model` knows.
        options: Keyword options of `build_model`, JSON values only.
        plan: The contract between images and network.
        state: The network's tensors, by name.
        provenance: Where it comes from: training data hash, commit, versions, seed, metrics.
        members: How many such networks are averaged; `segmed.ensemble` joins them.
    """

    architecture: str
    options: Mapping[str, Any]
    plan: Plan
    state: Mapping[str, Tensor] = field(repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    members: int = 1

    @cached_property
    def hash(self) -> str:
        """Hex sha256 of architecture, options, plan and weights: equal hash, equal output.

        Provenance does not enter: the same network trained by another clock is the same network.
        """
        digest = hashlib.sha256()
        head = [HASH_FORM, self.architecture, _plain(self.options), plan_hash(self.plan)]
        head += [self.members] if self.members > 1 else []
        digest.update(json.dumps(head, sort_keys=True).encode())
        for name in sorted(self.state):
            tensor = self.state[name].detach().cpu().contiguous()
            digest.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def build(self) -> nn.Module:
        """The network with its weights, on the CPU, in evaluation mode.

        Raises:
            ModelError: The architecture cannot be built with these options.
            WeightsError: The weights do not fit it.
        """
        networks = [
            build_model(
                self.architecture,
                spatial_dims=self.plan.spatial_dims,
                in_channels=self.plan.in_channels,
                num_classes=self.plan.num_classes,
                **self.options,
            )
            for _ in range(self.members)
        ]
        network: nn.Module = networks[0] if self.members == 1 else AveragedNetworks(networks)
        try:
            network.load_state_dict(dict(self.state), strict=True)
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:300]
            raise WeightsError(
                f"the package's weights do not fit {self.architecture}: {detail}"
            ) from error
        return network.eval().requires_grad_(False)

    def save(self, folder: Path | str) -> Path:
        """Write the package; the folder appears whole or not at all.

        Args:
            folder: Where to. A package already there is replaced; any other folder is refused.

        Returns:
            The folder.

        Raises:
            PackageError: `folder` holds something that is no package.
        """
        folder = Path(folder)
        if folder.exists() and not _is_replaceable(folder):
            raise PackageError(f"{folder} exists and is no package; choose another place")
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(
            tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent)
        )
        try:
            self._write_into(beside)
            beside.chmod(0o755)
            _swap(beside, folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        return folder

    def _write_into(self, folder: Path) -> None:
        state = {
            name: value.detach().cpu().contiguous().clone() for name, value in self.state.items()
        }
        _write_bytes(folder / WEIGHTS_FILE, save_tensors(state, metadata={"format": "pt"}))
        write_plan(self.plan, folder / PLAN_FILE)
        card = Card(
            schema_version=SCHEMA_VERSION,
            architecture=self.architecture,
            options=_plain(self.options),
            spatial_dims=self.plan.spatial_dims,
            channels=self.plan.channels,
            labels=self.plan.labels,
            provenance=_plain(self.provenance),
            files={name: _sha256(folder / name) for name in (WEIGHTS_FILE, PLAN_FILE)},
            hash=self.hash,
            segmed=__version__,
            members=self.members,
        )
        text = json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True)
        _write_bytes(folder / CARD_FILE, text.encode())

    @classmethod
    def load(cls, path: Path | str) -> ModelPackage:
        """Read a package and check it.

        Args:
            path: The folder, or a zip archive of it.

        Returns:
            The package, its tensors on the CPU.

        Raises:
            PackageError: A file is missing, damaged, a pickle, or of another schema version.
        """
        path = Path(path)
        if path.is_dir():
            return _read_folder(path)
        if not path.exists():
            raise PackageError(f"{path} does not exist; a package is a folder with {CARD_FILE}")
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise PackageError(
                f"{path.name} may be a pickle and is not opened; give a package folder instead"
            )
        with _unzipped(path) as folder:
            return _read_folder(folder)


def _read_folder(folder: Path) -> ModelPackage:
    card = read_card(folder)
    weights = _checked_bytes(folder, WEIGHTS_FILE, card, MAX_WEIGHTS_BYTES)
    _checked_bytes(folder, PLAN_FILE, card, MAX_TEXT_BYTES)
    try:
        plan = read_plan(folder / PLAN_FILE)
        state = load_tensors(weights)
    except (UsageError, SafetensorError, KeyError) as error:  # KeyError: an unknown number type
        raise PackageError(f"{folder} is damaged: {error}") from error
    package = ModelPackage(
        card.architecture, card.options, plan, state, card.provenance, card.members
    )
    if package.hash != card.hash:
        raise hash_differs(folder, card, package)
    return package


def hash_differs(folder: Path, card: Card, package: ModelPackage) -> PackageError:
    """The error for a card whose hash is not that of its package."""
    return PackageError(
        f"{folder / CARD_FILE} was changed after it was written: its hash is "
        f"{card.hash[:12]}, the content's is {package.hash[:12]}; fetch the package anew"
    )


def read_card(folder: Path) -> Card:
    """The card of a package folder, once it is sure that no file in it is missing or a pickle."""
    pickles = [p.name for p in folder.iterdir() if p.suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        raise PackageError(
            f"{folder} holds {pickles[0]}, which may be a pickle; a package holds only "
            + ", ".join(FILES)
        )
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise PackageError(f"{folder} is no package: {missing[0]} is missing")
    try:
        content = json.loads(_bounded_bytes(folder / CARD_FILE, MAX_TEXT_BYTES))
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{folder / CARD_FILE} is damaged: {error}") from error
    try:
        return Card.model_validate(upgraded(content, str(folder)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PackageError(f"{folder / CARD_FILE}: field {where!r}: {first['msg']}") from error


def _checked_bytes(folder: Path, name: str, card: Card, limit: int) -> bytes:
    content = _bounded_bytes(folder / name, limit)
    if hashlib.sha256(content).hexdigest() != card.files.get(name):
        raise sha256_differs(folder / name)
    return content


def sha256_differs(path: Path) -> PackageError:
    """The error for a file that is not the one that its card names."""
    return PackageError(
        f"{path} is not the file that was written (its sha256 differs from that in {CARD_FILE}); "
        "fetch the package anew"
    )


def _bounded_bytes(path: Path, limit: int) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise PackageError(f"{path} has {size} bytes; a package's file has at most {limit}")
    return path.read_bytes()


@contextmanager
def _unzipped(path: Path) -> Iterator[Path]:
    """A temporary folder with the three files of a zipped package."""
    with tempfile.TemporaryDirectory(prefix="segmed-package-") as scratch:
        unpack(path, Path(scratch), LIMITS)
        yield Path(scratch)


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / CARD_FILE).is_file() or not any(folder.iterdir()))


def _swap(new: Path, place: Path) -> None:
    """Put `new` at `place`; what was there goes away only after it has been put aside."""
    if not place.exists():
        new.rename(place)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".old", dir=place.parent))
    place.rename(aside / "package")
    try:
        new.rename(place)
    except OSError:
        (aside / "package").rename(place)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of a mapping, tuples as lists.

    Raises:
        PackageError: A value has no JSON form.
    """
    try:
        plain = json.loads(json.dumps(dict(content), sort_keys=True))
    except TypeError as error:
        raise PackageError(f"a package holds JSON values only: {error}") from error
    assert isinstance(plain, dict)
    return plain
