"""Prepared cases kept on disk, keyed by the content of their files and the steps of the plan."""

from __future__ import annotations

import json
import logging
import shutil
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmed.errors import ManifestError
from segmed.geometry import Grid
from segmed.io.atomic import whole_folder
from segmed.io.digest import sha256_of_json
from segmed.io.parts import files_of
from segmed.io.read import read_images
from segmed.manifest import Case, Manifest, image_digest
from segmed.manifest.content import is_as_listed, repair_of, stored_parts
from segmed.manifest.label_values import values_in
from segmed.manifest.reference import read_reference
from segmed.metatensor import MetaTensor
from segmed.metrics.training_norms import measure_reference
from segmed.plan.schema import Plan
from segmed.preprocessing.grid_transform import GridTransform, Prepared
from segmed.preprocessing.prepare import index_dtype, prepare, prepare_label

log = logging.getLogger(__name__)

CACHE_FORM = 3
"""Version of what `prepare` does and of how it is kept; raise it when either changes."""

LOST = "lost"
"""Key of the names of structures lost by resampling, in a case's measures."""

TORCH_TYPES = {"f4": torch.float32, "u1": torch.uint8, "i2": torch.int16, "i4": torch.int32,
               "i8": torch.int64}  # fmt: skip
"""Types of the arrays of an entry, by numpy's code."""


def cached_case(
    manifest: Manifest, case: Case, plan: Plan, cache_dir: Path | str
) -> tuple[Tensor, Tensor | None, Prepared]:
    """A case as network input, computed once and mapped from disk ever after.

    An entry is a folder named by the content of the case's files and the part of the plan that
    matters; folds, architectures and processes share it. It appears whole or not at all.

    Args:
        manifest: Where the case comes from.
        case: One of its cases.
        plan: The plan of the training set.
        cache_dir: Folder of entries; made where it is missing.

    Returns:
        The image float32 `[C, *target]`, the label `[*target]` of class indices (None
        without a reference), and the image's `Prepared`. Tensors are mapped from the files,
        private to this process: writing to them changes no file.

    Raises:
        ManifestError: A file is missing, or has other content than the manifest states.
        ImageError: A file cannot be read correctly, or does not fit the plan.
    """
    entry = _entry_of(manifest, case, plan, Path(cache_dir))
    try:
        return _taken(entry)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        log.warning("a prepared case is damaged and made anew: %s", error)
        shutil.rmtree(entry, ignore_errors=True)
        return _taken(_entry_of(manifest, case, plan, Path(cache_dir)))


def _taken(entry: Path) -> tuple[Tensor, Tensor | None, Prepared]:
    """A case from its entry.

    Raises:
        OSError, ValueError, KeyError, RuntimeError: The entry is damaged.
    """
    transform = _transform_from(json.loads((entry / "placement.json").read_text("utf-8")))
    image = _mapped(entry / "image.npy")
    label = _mapped(entry / "label.npy") if (entry / "label.npy").exists() else None
    return image, label, Prepared(image, transform)


def cached_measures(
    manifest: Manifest, case: Case, plan: Plan, cache_dir: Path | str
) -> dict[str, Any] | None:
    """Return `measure_reference` of a cached case; None if the entry has no label.

    Args and Raises are those of `cached_case`.
    """
    path = _entry_of(manifest, case, plan, Path(cache_dir)) / "measures.json"
    if not path.exists():
        return None
    measures: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return measures


def _entry_of(manifest: Manifest, case: Case, plan: Plan, cache_dir: Path) -> Path:
    """The folder of a case's entry, which is written if it is missing."""
    entry = cache_dir / cache_key(manifest, case, plan)
    if not (entry / "placement.json").exists():
        image, label = _read(manifest, case)
        prepared, indices = _prepare(image, label, plan)
        measures = None if label is None else measure_reference(image, label, plan.labels)
        if measures is not None and label is not None and indices is not None:
            measures[LOST] = lost_names(label, indices, plan)
        _write_entry(entry, prepared, indices, measures)
    return entry


def lost_names(label: Tensor, indices: Tensor, plan: Plan) -> list[str]:
    """Structures of a label map that have no voxel left on the target grid.

    Args:
        label: Label values as stored.
        indices: The same as class indices on the target grid, from `prepare_label`.
        plan: The plan of the training set.
    """
    before, after = values_in(label), values_in(indices)
    classes = enumerate(plan.labels, start=1)
    return [item.name for k, item in classes if item.value in before and k not in after]


def prepared_case(manifest: Manifest, case: Case, plan: Plan) -> tuple[Prepared, Tensor | None]:
    """Image and class indices of a case on the target grid, read and prepared anew."""
    return _prepare(*_read(manifest, case), plan)


def _read(manifest: Manifest, case: Case) -> tuple[MetaTensor, MetaTensor | None]:
    image = read_images(manifest.image_paths(case), num_channels=manifest.num_channels)
    path = manifest.label_path(case)
    return image, None if path is None else read_reference(manifest, path, like=image)


def _prepare(
    image: MetaTensor, label: MetaTensor | None, plan: Plan
) -> tuple[Prepared, Tensor | None]:
    prepared = prepare(image, plan)
    return prepared, None if label is None else prepare_label(label, prepared, plan)


def cache_key(manifest: Manifest, case: Case, plan: Plan) -> str:
    """Hex digest of a case's content and of what the plan does to it before training.

    Raises:
        ManifestError: A file is missing, or its digest is not the manifest's.
    """
    files = [*case.image, *([case.label] if case.label else [])]
    parts = {
        "form": CACHE_FORM,
        "files": [_checked_digest(manifest, case, name) for name in files],
        "label": case.label is not None,
        "labels": [(label.value, label.name) for label in plan.labels],
        **_index_type(plan),
        **stored_parts(manifest),
        "preprocessing": plan.preprocessing.model_dump(mode="json"),
    }
    return sha256_of_json(parts)[:32]


def _index_type(plan: Plan) -> dict[str, str]:
    """The type of class indices where it is not uint8: earlier versions wrapped more classes."""
    dtype = index_dtype(plan.num_classes)
    return {} if dtype is torch.uint8 else {"index_type": str(dtype)}


def _checked_digest(manifest: Manifest, case: Case, name: str) -> str:
    path = manifest.root / name
    try:
        found = _digest_once(path, _stamp(path))
    except FileNotFoundError:
        raise ManifestError(
            f"case {case.id!r}: {name} does not exist; `segmed manifest check` lists every fault"
        ) from None
    expected = case.sha256.get(name)
    if expected is not None and not is_as_listed(path, expected, found):
        raise ManifestError(
            f"case {case.id!r}: {name} does not have the content that the manifest states (sha256 "
            f"{found[:12]}, expected {expected[:12]}); {repair_of(path, expected)}"
        )
    return found


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times: as long as they stay, the digest need not be taken again."""
    files = sorted(path.rglob("*")) if path.is_dir() else files_of(path)
    stats = [(file.name, file.stat()) for file in files]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@lru_cache(maxsize=65536)
def _digest_once(path: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    return image_digest(path)


def _write_entry(
    entry: Path, prepared: Prepared, label: Tensor | None, measures: dict[str, Any] | None
) -> None:
    try:
        with whole_folder(entry) as draft:
            np.save(draft / "image.npy", prepared.tensor.numpy())
            if label is not None:
                np.save(draft / "label.npy", label.numpy())
            if measures is not None:
                (draft / "measures.json").write_text(json.dumps(measures), encoding="utf-8")
            text = json.dumps(_transform_as(prepared.transform))
            (draft / "placement.json").write_text(text, encoding="utf-8")
    except OSError:
        if not (entry / "placement.json").exists():  # else another process was first, and right
            raise


def _mapped(path: Path) -> Tensor:
    """An array file mapped privately, without a file handle that stays open as numpy's does."""
    with path.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            raise ValueError(f"{path.name} is of array format {version}")
        shape, is_fortran, dtype = read_header(stream)
        start = stream.tell()
    size = path.stat().st_size
    if size != start + dtype.itemsize * prod(shape):
        raise ValueError(f"{path.name} has {size} bytes, its header says otherwise")
    whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    flat = whole[start:].view(TORCH_TYPES[dtype.str[1:]])
    if is_fortran:
        return flat.reshape(shape[::-1]).permute(*reversed(range(len(shape))))
    return flat.reshape(shape)


def _transform_as(transform: GridTransform) -> dict[str, Any]:
    return {
        "shape_in": transform.grid_in.shape,
        "affine_ras": transform.grid_in.affine_ras.tolist(),
        "axes": transform.axes,
        "flips": transform.flips,
        "box": transform.box,
        "shape": transform.shape,
    }


def _transform_from(content: dict[str, Any]) -> GridTransform:
    affine = np.asarray(content["affine_ras"], dtype=np.float64)
    return GridTransform(
        grid_in=Grid(tuple(content["shape_in"]), affine),
        axes=tuple(content["axes"]),
        flips=tuple(content["flips"]),
        box=tuple((start, stop) for start, stop in content["box"]),
        shape=tuple(content["shape"]),
    )
