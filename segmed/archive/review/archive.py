"""An archive under review: studies, worst first, with images, label maps and corrections."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segmed.archive.ledger import Entry, Ledger
from segmed.archive.ledger.file import LEDGER_FILE
from segmed.archive.ledger.inputs import InputOf
from segmed.archive.review.inputs import case_of, fetched_case
from segmed.archive.review.store import Correction, Origin, ReviewStore
from segmed.archive.review.structures import ModelStructures, structures_of
from segmed.archive.triage import priority_of
from segmed.errors import GeometryError, UsageError
from segmed.formats import RASTER_FORMATS, RASTER_OUTPUT_SUFFIX
from segmed.io import grid_of, read_label, source_of, write_label
from segmed.io.channel_files import CaseFiles
from segmed.io.digest import sha256_of_file
from segmed.io.read import read_case
from segmed.metatensor import MetaTensor

CORRECTIONS = "corrections"
"""Folder of the corrected label maps in the output folder of an archive."""

IMAGES_IN_MEMORY = 2


@dataclass(frozen=True)
class ReviewedStudy:
    """A segmented study of an archive.

    Attributes:
        entry: Its entry in the ledger.
        inputs: Its input, and copies of that.
        earlier: Older results of the same content by other models, the newest first.
    """

    entry: Entry
    inputs: tuple[InputOf, ...]
    earlier: tuple[Entry, ...] = ()

    @property
    def priority(self) -> float:
        """Review priority by its predicted quality, else by its quality flags."""
        return priority_of(self.entry.measures)


class ReviewArchive:
    """The output folder of an archive run, for its reviewers.

    Args:
        out_dir: The folder.

    Raises:
        UsageError: There is no ledger.
    """

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir
        with Ledger(out_dir / LEDGER_FILE, writer=False):
            pass  # no review of a folder that is not an archive
        self.store = ReviewStore(out_dir)
        self.adopt_corrections()
        self._listed: tuple[object, list[ReviewedStudy]] | None = None
        self._read = lru_cache(maxsize=IMAGES_IN_MEMORY)(self._read_image)

    def adopt_corrections(self) -> int:
        """Record corrections whose file was written before a process died; returns how many."""
        found = 0
        for correction in self.store.corrections(unfinished=True):
            path = self.out_dir / correction.file
            if path.is_file():
                self.store.finish_correction(correction.id, sha256_of_file(path))
                found += 1
        return found

    def studies(self) -> list[ReviewedStudy]:
        """All segmented studies, each with its newest result, the worst first."""
        state = tuple(_state_of(self.out_dir / f"{LEDGER_FILE}{end}") for end in ("", "-wal"))
        if self._listed is None or self._listed[0] != state:
            self._listed = (state, self._list_studies())
        return self._listed[1]

    def _list_studies(self) -> list[ReviewedStudy]:
        by_content: dict[str, dict[str, list[InputOf]]] = defaultdict(lambda: defaultdict(list))
        for item in self._items(()):
            by_content[item.entry.content][item.entry.key].append(item)
        found = []
        for results in by_content.values():
            newest, *earlier = sorted(
                results.values(), key=lambda items: (-items[0].entry.worked, items[0].entry.key)
            )
            found.append(
                ReviewedStudy(newest[0].entry, tuple(newest), tuple(e[0].entry for e in earlier))
            )
        return sorted(found, key=lambda study: (-study.priority, study.entry.key))

    def study(self, text: str) -> ReviewedStudy:
        """The study of a key, or of a text that belongs to one study alone.

        Raises:
            UsageError: No study has it, or several have.
        """
        exact = [one for one in self.studies() if one.entry.key == text]
        if exact:
            return exact[0]
        items = list(self._items((text,)))
        contents = {item.entry.content for item in items}
        if len(contents) != 1:
            number = "no segmented study" if not contents else f"{len(contents)} studies"
            raise UsageError(
                f"{text!r:.90} belongs to {number} of {self.out_dir}; `segmed archive list` shows "
                "what there is"
            )
        content = contents.pop()
        return next(one for one in self.studies() if one.entry.content == content)

    def entry(self, study: ReviewedStudy, key: str) -> Entry:
        """The result of a key among those of a study."""
        return next(one for one in (study.entry, *study.earlier) if one.key == key)

    def structures(self, entry: Entry) -> ModelStructures:
        """Structures of the label map of an entry."""
        return structures_of(self.out_dir, entry.package)

    def image(self, study: ReviewedStudy) -> MetaTensor:
        """The image of a study, its content checked; the last ones stay in memory.

        Raises:
            ImageError: It is gone, has changed, or is in a PACS.
        """
        return self._read(study.entry.key)

    def _read_image(self, key: str) -> MetaTensor:
        study = self.study(key)
        number = self.structures(study.entry).num_channels
        return read_case(self.case(study), num_channels=number)

    def fetched_folder(self, study: ReviewedStudy) -> Path:
        """Folder of the images of a study that were fetched from a PACS for its review."""
        return self.out_dir / CORRECTIONS / study.entry.study / "images"

    def case(self, study: ReviewedStudy) -> CaseFiles:
        """Files of the image of a study.

        Raises:
            ImageError: It is gone, has changed, or is in a PACS.
        """
        folder = self.fetched_folder(study)
        if not study.inputs[0].root and folder.is_dir():
            return fetched_case(study.inputs[0], folder)
        return case_of(study.inputs, self.structures(study.entry).num_channels)

    def result(self, study: ReviewedStudy, entry: Entry | None = None) -> npt.NDArray[np.int32]:
        """The label map of a result, `[*spatial]` on the grid of the image.

        Args:
            study: The study.
            entry: One of its earlier results instead of the newest.

        Raises:
            ImageError: It cannot be read.
            GeometryError: It is on another grid.
        """
        shown = entry or study.entry
        assert shown.output is not None
        return self._label(
            study, self.out_dir / shown.output, self.structures(shown), self.image(study)
        )

    def corrected(self, study: ReviewedStudy, correction: Correction) -> npt.NDArray[np.int32]:
        """The label map of a correction, `[*spatial]` on the grid of the image."""
        path = self.out_dir / correction.file
        return self._label(study, path, self.structures(study.entry), self.image(study))

    def _label(
        self, study: ReviewedStudy, path: Path, structures: ModelStructures, image: MetaTensor
    ) -> npt.NDArray[np.int32]:
        label = read_label(path, like=image, labels=structures.labels)
        return np.asarray(np.asarray(label)[0], dtype=np.int32)

    def save(
        self,
        study: ReviewedStudy,
        values: npt.NDArray[Any],
        author: str,
        *,
        origin: Origin,
        base: str = "",
        session: str | None = None,
        uid: str = "",
    ) -> Correction:
        """Save a corrected label map beside the result, whole or not at all.

        Args:
            study: The study.
            values: `[*spatial]` on the grid of the image.
            author: Who made it.
            origin: Where it comes from.
            base: SHA-256 of the label map that it began with; of the result if not given.
            session: The page that has the study; None if it comes from elsewhere.
            uid: SOPInstanceUID of the object it was read from.

        Raises:
            StudyHeldError: Another page has the study.
            UsageError: A value is not a structure.
            GeometryError: The shape is not that of the image.
        """
        image, structures = self.image(study), self.structures(study.entry)
        if values.shape != grid_of(image).shape:
            raise GeometryError(
                f"a label map of shape {values.shape} does not fit the image {grid_of(image).shape}"
            )
        require_known_values(values, structures)
        correction = self.store.begin_correction(
            study.entry.key,
            author,
            self._free_name(study, image),
            origin=origin,
            base=base or (study.entry.output_sha256 or ""),
            session=session,
            uid=uid,
        )
        path = self.out_dir / correction.file
        write_label(path, torch.from_numpy(values), like=image, labels=structures.labels)
        self.store.finish_correction(correction.id, sha256_of_file(path))
        return next(
            one for one in self.store.corrections(study.entry.key) if one.id == correction.id
        )

    def _free_name(self, study: ReviewedStudy, image: MetaTensor) -> str:
        source = source_of(image)
        is_flat = source is not None and source.format in RASTER_FORMATS and image.ndim == 3
        suffix = RASTER_OUTPUT_SUFFIX if is_flat else ".nii.gz"
        return f"{CORRECTIONS}/{study.entry.study}/{secrets.token_hex(6)}{suffix}"

    def _items(self, texts: Sequence[str]) -> Iterator[InputOf]:
        with Ledger(self.out_dir / LEDGER_FILE, writer=False) as ledger:
            for item in ledger.inputs_with([[text] for text in texts]):
                if item.entry.state == "done" and item.entry.output is not None:
                    yield item


def _state_of(path: Path) -> tuple[int, int]:
    """Time and size of a file, which change with its content; zeros without one."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def require_known_values(values: npt.NDArray[Any], structures: ModelStructures) -> None:
    """Refuse values that are not structures.

    Raises:
        UsageError: There is one; the structures are listed.
    """
    known = {0, *(value for label in structures.labels for value in label.values)}
    unknown = sorted(set(np.unique(values).tolist()) - known)
    if unknown:
        names = ", ".join(f"{label.value} {label.name}" for label in structures.labels)
        raise UsageError(f"value {unknown[0]} is not a structure; these are 0 background, {names}")
