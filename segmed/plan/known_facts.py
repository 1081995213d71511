"""Facts of training cases that were surveyed before, kept beside the prepared cases.

A plan of another size, of other dimensions or for another budget needs the same facts of the same
images: they are read once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segmed.geometry import Grid
from segmed.io.digest import sha256_of_json
from segmed.io.packs import DamagedRecordError, PackIndex, Record, write_pack
from segmed.manifest.content import encoding_parts, stored_parts
from segmed.manifest.known_digests import DIGESTS, KnownDigests
from segmed.manifest.resampled import Extent
from segmed.manifest.schema import Case, Manifest
from segmed.plan.case_facts import CaseFacts
from segmed.plan.shapes import StructureShapes

FACTS_FORM = 2
"""Version of what is measured and of how it is kept; raise it when either changes."""

SHAPES = ("extent_mm", "thickness_mm", "gap_mm", "together_mm")
"""Fields of `StructureShapes`."""

DAMAGE = (OSError, ValueError, KeyError, TypeError)
"""Errors of reading a record that is damaged, or that another process has removed."""


class KnownFacts:
    """Facts by the content of a case's files and the meaning of its labels.

    Threads may use it at once.

    Args:
        folder: Folder of packs, such as that of the prepared cases; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = PackIndex(folder)
        self._index.refresh()
        self._digests = KnownDigests(folder / DIGESTS)
        self._fresh: dict[str, CaseFacts] = {}

    def facts(
        self, manifest: Manifest, case: Case, samples: int, look: Callable[[], CaseFacts]
    ) -> CaseFacts:
        """Facts of a case, measured if they are not known.

        Args:
            manifest: Where the case comes from.
            case: The case.
            samples: Most intensities that its facts have.
            look: Measures them; raises what is wrong with the case.
        """
        try:
            key = self._key(manifest, case, samples)
        except OSError:  # a file is missing, which `look` names
            return look()
        record = self._index.get(key)
        if record is not None:
            try:
                return _read(record)
            except DAMAGE:
                self._index.drop(key, record)
        self._fresh[key] = found = look()
        return found

    def has(self, manifest: Manifest, case: Case, samples: int) -> bool:
        """Return whether the facts of a case were kept; arguments as for `facts`."""
        try:
            return self._index.get(self._key(manifest, case, samples)) is not None
        except OSError:  # a file is missing
            return False

    def save(self) -> None:
        """Keep what was measured since, for the next plan; a read-only folder is left alone."""
        if not self._fresh:
            return
        try:
            write_pack(self.folder, [(key, *_written(one)) for key, one in self._fresh.items()])
        except PermissionError:
            return
        self._fresh = {}
        self._digests.save()

    def _key(self, manifest: Manifest, case: Case, samples: int) -> str:
        files = [*case.image, *([case.label] if case.label else [])]
        parts = {
            "survey": FACTS_FORM,
            "files": [self._digests.digest(manifest.root / name) for name in files],
            "labels": [label.model_dump(mode="json") for label in manifest.labels],
            **encoding_parts(manifest.encoding),
            **stored_parts(manifest),
            "channels": manifest.num_channels,
            "samples": samples,
        }
        return sha256_of_json(parts)[:32]


def _written(facts: CaseFacts) -> tuple[bytes, Any]:
    """Content of a record, and what its index states of it."""
    fields = {
        "shape": facts.shape,
        "filled_shape": facts.filled_shape,
        "spacing_mm": facts.spacing_mm,
        "orientation": facts.orientation,
        "class_voxels": facts.class_voxels,
        "background_zero": facts.background_zero,
        "grid": [facts.grid.shape, facts.grid.affine_ras.tolist()],
        "box": facts.box,
        "extents": [(one.value, one.voxels, one.edges) for one in facts.extents],
        "shapes": {name: getattr(facts.shapes, name).tolist() for name in SHAPES},
    }
    head = json.dumps(fields).encode()
    content = head + np.ascontiguousarray(facts.foreground, dtype="<f4").tobytes()
    return content, ["survey", len(head), list(facts.foreground.shape), zlib.crc32(content)]


def _read(record: Record) -> CaseFacts:
    """Facts from a record.

    Raises:
        OSError, ValueError, KeyError, TypeError: It is damaged, or gone.
    """
    _, length, shape, checksum = record.facts
    (content,) = record.read([(0, record.length)])
    if zlib.crc32(content) != checksum:
        raise DamagedRecordError("the facts of a case are damaged")
    fields = json.loads(content[:length])
    sizes = {name: np.array(fields["shapes"][name], dtype=np.float64) for name in SHAPES}
    grid_shape, affine = fields["grid"]
    return CaseFacts(
        shape=tuple(fields["shape"]),
        filled_shape=tuple(fields["filled_shape"]),
        spacing_mm=tuple(fields["spacing_mm"]),
        orientation=fields["orientation"],
        class_voxels=tuple(fields["class_voxels"]),
        foreground=np.frombuffer(content[length:], dtype="<f4").reshape(shape).astype(np.float32),
        background_zero=fields["background_zero"],
        grid=Grid(tuple(grid_shape), np.array(affine, dtype=np.float64)),
        box=tuple((first, last) for first, last in fields["box"]),
        extents=tuple(Extent(value, n, tuple(edges)) for value, n, edges in fields["extents"]),
        shapes=StructureShapes(**sizes),
    )
