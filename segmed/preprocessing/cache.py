"""Prepared cases kept on disk, keyed by the content of their files and the steps of the plan."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from segmed.errors import ManifestError, SegmedError
from segmed.io import read_label
from segmed.io.packs import PackIndex, Record, write_pack
from segmed.manifest import Case, Manifest
from segmed.manifest.case_reader import CaseReader
from segmed.manifest.known_digests import DIGESTS, KnownDigests
from segmed.manifest.label_values import values_in
from segmed.metatensor import MetaTensor
from segmed.metrics.training_norms import measure_reference
from segmed.one_line import OneLine
from segmed.plan.schema import Plan
from segmed.preprocessing.blocks import BlockCache
from segmed.preprocessing.entry import EntryFacts, PreparedEntry, encode_entry
from segmed.preprocessing.entry_key import key_of, rules_of
from segmed.transforms.chain import preparation, prepared_of
from segmed.transforms.first_stage import needs_first_stage, with_label_map
from segmed.transforms.grid_transform import Prepared
from segmed.transforms.room import free_bytes

log = logging.getLogger(__name__)

BLOCK_SHARE = 0.125
"""Share of the memory that is free at first use for blocks that were read last."""

OPEN_ENTRIES = 1024
"""Cases whose headers stay in memory."""

DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError)
"""Errors of reading a record that is damaged, or that another process has removed."""

Got = TypeVar("Got")


@lru_cache(maxsize=1)
def shared_blocks() -> BlockCache:
    """The blocks in memory of this process, whatever cache they come from."""
    return BlockCache(int(BLOCK_SHARE * free_bytes()))


class _Shelf:
    """Packs and digests of one folder, shared by all caches of this process on it."""

    def __init__(self, folder: Path) -> None:
        self.index = PackIndex(folder)
        self.digests = KnownDigests(folder / DIGESTS)


@lru_cache(maxsize=16)
def _shelf_of(folder: Path) -> _Shelf:
    return _Shelf(folder)


class PreparedCache(OneLine):
    """Prepared cases of one image set under one plan.

    Cases are records of packs, named by the content of their files and the part of the plan that
    matters; folds, architectures and processes share them. A pack appears whole or not at all.
    Threads may use a cache at once.

    Args:
        manifest: Where the cases come from.
        plan: The plan of the training set.
        folder: Folder of packs; made where it is missing.
        label_maps: For a plan that refines a first stage: the label map of each case by it, a file.

    Raises:
        UsageError: The plan refines a first stage, and no label map of it is given.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        folder: Path | str,
        label_maps: Mapping[str, Path] | None = None,
    ) -> None:
        if plan.refines and not label_maps:
            raise needs_first_stage(plan)
        self.label_maps = dict(label_maps or {}) if plan.refines else {}
        self.manifest = manifest
        self.plan = plan
        self.folder = Path(folder)
        self._shelf = _shelf_of(Path(folder).absolute())
        self._entries: OrderedDict[str, PreparedEntry] = OrderedDict()
        self._lock = threading.Lock()
        self._rules = rules_of(manifest, plan)

    def key(self, case: Case) -> str:
        """Name of a case's record; its files are read only if they were touched since last time.

        Raises:
            ManifestError: A file is missing, or its digest is not the manifest's.
        """
        digest = self._shelf.digests.digest
        return key_of(self.manifest, case, self._rules, digest, self._label_map(case))

    def _label_map(self, case: Case) -> Path | None:
        """The label map of a case by a first stage, where the plan refines one."""
        if not self.plan.refines:
            return None
        found = self.label_maps.get(case.id)
        if found is None:
            raise ManifestError(
                f"case {case.id!r} has no label map of the first stage: train the first stage on "
                "all folds"
            )
        return found

    def refresh(self) -> None:
        """Take notice of what other processes have prepared."""
        self._shelf.index.refresh()

    def has(self, key: str) -> bool:
        """Return whether a record was there at the last refresh."""
        return self._shelf.index.get(key) is not None

    def lacks(self, case: Case) -> bool:
        """Return whether a case is still to be prepared; True if its files cannot be read."""
        try:
            return not self.has(self.key(case))
        except (SegmedError, OSError):
            return True

    def find(self, key: str) -> Record | None:
        """The record of a key, if the cache has it now."""
        if not self.has(key):
            self.refresh()
        return self._shelf.index.get(key)

    def missing(self, cases: Sequence[Case]) -> list[Case]:
        """The cases that are still to be prepared.

        Raises:
            ManifestError: A file is missing, or its digest is not the manifest's.
        """
        self.refresh()
        found = [case for case in cases if not self.has(self.key(case))]
        self.save()
        return found

    def content(self, case: Case, reader: CaseReader | None = None) -> tuple[bytes, list[Any]]:
        """A case read and prepared again, as the content of a record and its facts.

        Args:
            case: The case.
            reader: Reader of the manifest's cases that has the files of several at once.

        Raises:
            ImageError: A file cannot be read correctly, or does not fit the plan.
        """
        image, label = _read(reader or CaseReader(self.manifest), case)
        prepared, indices = _prepare(image, label, self.plan)
        if (of_first := self._label_map(case)) is not None:
            found = read_label(of_first, trusted=True, like=image)
            prepared = with_label_map(prepared, found, self.plan)
        measures, lost = None, []
        if label is not None and indices is not None:
            measures = measure_reference(image, label, self.plan.labels)
            lost = lost_names(label, indices, self.plan)
        return encode_entry(
            prepared,
            indices,
            measures=measures,
            lost=lost,
            slice_axis=self.plan.slice_axis,
            ignore_index=self.plan.encoding.ignore_index,
        )

    def add(self, records: Sequence[tuple[str, bytes, Any]]) -> None:
        """Write records into a new pack: key, content and facts of each."""
        if records:
            write_pack(self.folder, records)
            self.refresh()

    def save(self) -> None:
        """Keep the digests that were taken for the next start."""
        self._shelf.digests.save()

    def case(self, case: Case) -> PreparedCase:
        """A case of the cache, prepared first if it is missing.

        Raises:
            ManifestError: A file is missing, or has other content than the manifest states.
            ImageError: A file cannot be read correctly, or does not fit the plan.
        """
        return PreparedCase(self, case, self.key(case))

    def record(self, case: Case, key: str) -> Record:
        """The record of a case, which is made if it is missing."""
        found = self.find(key)
        if found is None:
            content, facts = self.content(case)
            self.add([(key, content, facts)])
            found = self.find(key)
        if found is None:
            raise ManifestError(
                f"case {case.id!r}: what was prepared into {self.folder} is not there any more; "
                "another process removes it, or the disk is failing"
            )
        return found

    def entry(self, case: Case, key: str) -> PreparedEntry:
        """The opened record of a case."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        record = self.record(case, key)
        try:
            entry = PreparedEntry(key, record, shared_blocks())
        except DAMAGE as error:
            self.forget(key, record, error)
            entry = PreparedEntry(key, self.record(case, key), shared_blocks())
        with self._lock:
            self._entries[key] = entry
            while len(self._entries) > OPEN_ENTRIES:
                self._entries.popitem(last=False)
        return entry

    def forget(self, key: str, record: Record, error: Exception) -> None:
        """Take a record for lost, so that the case is prepared again."""
        log.warning("a prepared case is damaged and made anew: %s", error)
        self._shelf.index.drop(key, record)
        with self._lock:
            self._entries.pop(key, None)


class PreparedCase:
    """One case of a cache, read in parts; prepared again if its record is damaged.

    Args:
        cache: The cache.
        case: The case of the manifest.
        key: Its key.
    """

    def __init__(self, cache: PreparedCache, case: Case, key: str) -> None:
        self._cache = cache
        self._case = case
        self._key = key
        self.id = case.id
        self.facts = EntryFacts.from_record(cache.record(case, key).facts)

    def __repr__(self) -> str:
        """Name and size in one line."""
        return f"PreparedCase({self.id!r}: {'x'.join(map(str, self.facts.shape))} voxels)"

    def read(self, use: Callable[[PreparedEntry], Got]) -> Got:
        """Return what `use` gives for the opened record; repeated if the record is damaged.

        Raises:
            ManifestError: The record cannot be read even after it was made anew.
        """
        entry = self._cache.entry(self._case, self._key)
        try:
            return use(entry)
        except DAMAGE as error:
            self._cache.forget(self._key, entry.record, error)
        entry = self._cache.entry(self._case, self._key)
        try:
            return use(entry)
        except DAMAGE as error:
            raise ManifestError(
                f"case {self.id!r} cannot be read from {self._cache.folder} ({error}); check the "
                "disk, or name another folder"
            ) from error


def cached_case(
    manifest: Manifest, case: Case, plan: Plan, cache_dir: Path | str
) -> tuple[Tensor, Tensor | None, Prepared]:
    """A case as network input, computed once and read from disk ever after.

    Values of images are kept exactly where an image has few different ones, as without
    interpolation; else within 1/2048 of the range between their 1st and 99th percentile.

    Args:
        manifest: Where the case comes from.
        case: One of its cases.
        plan: The plan of the training set.
        cache_dir: Folder of the cache; made where it is missing.

    Returns:
        The image float32 `[C, *target]`, the label `[*target]` of class indices (None
        without a reference), and the image's `Prepared`. Writing to them changes no file.

    Raises:
        ManifestError: A file is missing, or has other content than the manifest states.
        ImageError: A file cannot be read correctly, or does not fit the plan.
    """
    image, label, transform = (
        PreparedCache(manifest, plan, cache_dir)
        .case(case)
        .read(lambda entry: (entry.image(), entry.label(), entry.transform))
    )
    return image, label, Prepared(image, transform)


def cached_measures(
    manifest: Manifest, case: Case, plan: Plan, cache_dir: Path | str
) -> dict[str, Any] | None:
    """Return `measure_reference` of a cached case; None if the entry has no label.

    Args and Raises are those of `cached_case`.
    """
    return PreparedCache(manifest, plan, cache_dir).case(case).read(lambda entry: entry.measures)


def lost_names(label: Tensor, indices: Tensor, plan: Plan) -> list[str]:
    """Structures of a label map that have no voxel left on the target grid.

    Args:
        label: Label values as stored.
        indices: The same as class indices on the target grid, from `prepare_label`.
        plan: The plan of the training set.
    """
    before, after = values_in(label), values_in(indices)
    classes = zip(plan.labels, plan.encoding.members, strict=True)
    return [
        item.name
        for item, indices_of_item in classes
        if before.intersection(item.values) and not after.intersection(indices_of_item)
    ]


def prepared_case(manifest: Manifest, case: Case, plan: Plan) -> tuple[Prepared, Tensor | None]:
    """Image and class indices of a case on the target grid, read and prepared again.

    The channels are those of the image, also where the plan refines a first stage.
    """
    return _prepare(*_read(CaseReader(manifest), case), plan)


def _read(reader: CaseReader, case: Case) -> tuple[MetaTensor, MetaTensor | None]:
    image = reader.image(case)
    return image, None if case.label is None else reader.label(case.label, like=image)


def _prepare(
    image: MetaTensor, label: MetaTensor | None, plan: Plan
) -> tuple[Prepared, Tensor | None]:
    row = preparation(plan)({"image": image} if label is None else {"image": image, "label": label})
    indices = None if label is None else row["label"].as_tensor()[0]
    return prepared_of(row["image"]), indices
