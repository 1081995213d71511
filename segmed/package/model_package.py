"""A model that can be used: weights, plan and provenance in one folder, none of it executed.

```
package/
├── model.safetensors   the tensors
├── plan.yaml           the plan, with its reasons
├── plan-2.yaml         a further plan, if the networks have several, such as 2D and 3D
├── package.json        architecture, options, provenance, and the sha256 of the other files
└── int8.safetensors    the network in int8, if it was quantised and accepted
```

The digests find damage and careless edits; they are not a signature: who can rewrite a package can
rewrite its digests too.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from segmed.architectures import require_registered
from segmed.doors import checked
from segmed.errors import PackageError, UsageError, WeightsError
from segmed.io.atomic import whole_folder
from segmed.io.digest import sha256_of_bytes, sha256_of_file
from segmed.package.card import (
    CARD_FILE,
    FURTHER_PLAN_FILES,
    LIMITS,
    MAX_TEXT_BYTES,
    MAX_WEIGHTS_BYTES,
    PICKLE_SUFFIXES,
    PLAN_FILE,
    WEIGHTS_FILE,
    Card,
    PackagePart,
    StoredTensor,
    bounded_bytes,
    hash_differs,
    identity,
    identity_head,
    plain_values,
    read_card,
    read_plans,
    sha256_differs,
)
from segmed.package.int8 import (
    INT8_FILE,
    MAX_INT8_BYTES,
    Int8Network,
    hash_with_int8,
    require_int8,
)
from segmed.package.upgrade import SCHEMA_VERSION
from segmed.package.zipped import unpack
from segmed.plan import Plan, write_plan
from segmed.quality.identity import hash_with_quality
from segmed.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class ModelPackage:
    """A trained network with everything that is needed to use it.

    Attributes:
        architecture: Name that `build_model` accepts; several joined by `+`.
        options: Keyword options of `build_model`, JSON values only; none for several.
        plan: The contract between images and network.
        state: The network's tensors, by name.
        provenance: Where it comes from: training data hash, commit, versions, seed, metrics.
        members: How many such networks are averaged; `segmed.package.ensemble` joins them.
        parts: The architectures, or the part models, if there are several; their networks follow
            each other.
        int8: The network in int8; `accepted_int8` is the one to use.
        plans: The plans after the first, of networks that are averaged on the image's own grid
            (see `segmed.package.several_plans`), or that of the first stage of a cascade.
    """

    architecture: str
    options: Mapping[str, Any]
    plan: Plan
    state: Mapping[str, Tensor] = field(repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    members: int = 1
    parts: tuple[PackagePart, ...] = ()
    int8: Int8Network | None = None
    plans: tuple[Plan, ...] = ()

    def __repr__(self) -> str:
        """Architecture, image set, structures, training and hash in one line."""
        labels = ", ".join(label.name for label in self.plan.labels[:6])
        labels += ", ..." if len(self.plan.labels) > 6 else ""
        members = "" if self.members == 1 else f" x {self.members}"
        members = f" in two stages, {self.members} networks" if self.plan.refines else members
        steps = self.provenance.get("steps")
        trained = "" if steps is None else f"; {steps} steps, fold {self.provenance.get('fold')}"
        return (
            f"ModelPackage({self.architecture}{members}, {self.dimensions} for "
            f"{self.plan.name!r}: {labels}{trained}; {self.hash[:12]})"
        )

    @cached_property
    def hash(self) -> str:
        """Hex sha256 of architecture, options, plan, weights and int8: equal hash, equal output.

        Provenance does not enter: the same network trained by another clock is the same network.
        Except for predicted quality that was changed since, see `quality_digest`.
        """
        int8, plain = self.accepted_int8, self.float32_hash
        whole = plain if int8 is None else hash_with_int8(plain, int8.record)
        return hash_with_quality(whole, self.provenance)

    @cached_property
    def accepted_int8(self) -> Int8Network | None:
        """The network in int8, if there is one of these very weights and this very plan.

        After a change of either, what was measured for int8 holds no longer: it is left out.
        """
        if self.int8 is None or self.int8.record.made_from == self.float32_hash:
            return self.int8
        logger.warning(
            "the int8 network was made from other weights or another plan and is left out; "
            "quantise the model again"
        )
        return None

    @cached_property
    def float32_hash(self) -> str:
        """Hash of the same package without its int8 network."""
        head = identity_head(
            self.architecture, self.options, self.plan, self.members, self.parts, self.plans
        )
        return identity(head, map(self._bytes_of, sorted(self.state)))

    def _bytes_of(self, name: str) -> StoredTensor:
        tensor = self.state[name].detach().cpu().contiguous()
        content = tensor.reshape(-1).view(torch.uint8).numpy().data
        return StoredTensor(name, str(tensor.dtype), tuple(tensor.shape), content)

    @property
    def forms(self) -> list[PackagePart]:
        """Architecture and options of each network, in order."""
        whole = PackagePart(architecture=self.architecture, options=dict(self.options))
        if not self.parts:
            return [whole] * self.members
        return [part for part in self.parts for _ in range(part.members)]

    @property
    def dimensions(self) -> str:
        """Dimensions of the networks in words, such as `3D` or `2D and 3D`."""
        found = sorted({plan.spatial_dims for plan in (self.plan, *self.plans)})
        return " and ".join(f"{dims}D" for dims in found)

    def require_one_plan(self, use: str) -> None:
        """Check that all networks take the same windows, as one network must.

        Args:
            use: What needs that, for the message.

        Raises:
            UsageError: The package has several plans.
        """
        if self.plans:
            several = (
                "is a cascade, whose second stage refines the label map of the first"
                if self.plan.refines
                else f"averages networks of {len(self.plans) + 1} plans ({self.dimensions}) on the "
                "grid of the image"
            )
            raise UsageError(
                f"{use} takes one network on one grid, and {self.architecture} {several}: use "
                "predict, archive, serve or export zip; or give the model of one plan"
            )

    def build(self) -> nn.Module:
        """The network with its weights, on the CPU, in evaluation mode.

        Raises:
            UsageError: The networks have several plans, and are no single network.
            ModelError: The architecture is not registered here, or cannot be built with these
                options.
            WeightsError: The weights do not fit it.
        """
        self.require_one_plan("building the network")
        # A network that was converted is not built: the architectures stay unloaded.
        from segmed.package.untrained import untrained_network  # noqa: PLC0415 - see above

        forms = self.forms
        for name in dict.fromkeys(form.architecture for form in forms):
            require_registered(name)
        network = untrained_network(self.plan, forms, self.parts)
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
            PackageError: `folder` contains something that is not a package.
        """
        folder = Path(folder)
        if folder.exists() and not _is_replaceable(folder):
            raise PackageError(f"{folder} exists and is not a package; choose another place")
        with whole_folder(folder, replaces=True) as draft:
            self._write_into(draft)
        return folder

    def _write_into(self, folder: Path) -> None:
        state = {
            name: value.detach().cpu().contiguous().clone() for name, value in self.state.items()
        }
        (folder / WEIGHTS_FILE).write_bytes(save_tensors(state, metadata={"format": "pt"}))
        further = FURTHER_PLAN_FILES[: len(self.plans)]
        names, int8 = [WEIGHTS_FILE, PLAN_FILE, *further], self.accepted_int8
        for plan, name in zip((self.plan, *self.plans), names[1:], strict=True):
            write_plan(plan, folder / name)
        if int8 is not None:
            (folder / INT8_FILE).write_bytes(int8.content)
            names.append(INT8_FILE)
        card = Card(
            schema_version=SCHEMA_VERSION,
            architecture=self.architecture,
            options=plain_values(self.options),
            spatial_dims=self.plan.spatial_dims,
            channels=self.plan.channels,
            labels=self.plan.labels,
            provenance=plain_values(self.provenance),
            files={name: sha256_of_file(folder / name) for name in names},
            hash=self.hash,
            segmed=__version__,
            members=self.members,
            parts=self.parts,
            int8=None if int8 is None else int8.record,
        )
        text = json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True)
        (folder / CARD_FILE).write_bytes(text.encode())

    @classmethod
    @checked()
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
    names = (PLAN_FILE, *card.further_plans)
    for name in names:
        _checked_bytes(folder, name, card, MAX_TEXT_BYTES)
    plan, *further = read_plans(folder, names)
    try:
        state = load_tensors(weights)
    except (SafetensorError, KeyError) as error:  # KeyError: an unknown number type
        raise PackageError(f"{folder} is damaged: {error}") from error
    package = ModelPackage(
        card.architecture,
        card.options,
        plan,
        state,
        card.provenance,
        card.members,
        card.parts,
        _read_int8(folder, card),
        tuple(further),
    )
    if package.int8 is not None:
        record = package.int8.record
        require_int8(record, card.files.get(INT8_FILE, ""), package.float32_hash, str(folder))
    if package.hash != card.hash:
        raise hash_differs(folder, card, package.hash)
    return package


def _read_int8(folder: Path, card: Card) -> Int8Network | None:
    if card.int8 is None:
        return None
    return Int8Network(card.int8, _checked_bytes(folder, INT8_FILE, card, MAX_INT8_BYTES))


def _checked_bytes(folder: Path, name: str, card: Card, limit: int) -> bytes:
    content = bounded_bytes(folder / name, limit)
    if sha256_of_bytes(content) != card.files.get(name):
        raise sha256_differs(folder / name)
    return content


@contextmanager
def _unzipped(path: Path) -> Iterator[Path]:
    """A temporary folder with the files of a zipped package."""
    with tempfile.TemporaryDirectory(prefix="segmed-package-") as scratch:
        unpack(path, Path(scratch), LIMITS)
        yield Path(scratch)


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / CARD_FILE).is_file() or not any(folder.iterdir()))
