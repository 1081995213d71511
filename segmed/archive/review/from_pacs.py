"""Corrections that readers stored in a PACS: segmentations of our series that are not ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from segmed.archive.pacs.remote import RemoteSource
from segmed.archive.review.archive import ReviewArchive, ReviewedStudy
from segmed.archive.review.store import MAX_AUTHOR
from segmed.errors import AccessDeniedError, SegmedError, ServiceError
from segmed.io import grid_of
from segmed.io.atomic import whole_folder
from segmed.io.dicom.seg_read import SEG_CLASSES, load_seg
from segmed.io.joining import require_joinable
from segmed.io.read import source_of
from segmed.io.scratch import scratch_folder

OWN_MANUFACTURER = "segmed"
"""Manufacturer of the objects that segmed writes."""

UNNAMED = "PACS"
"""Author of an object that names none."""


@dataclass
class PacsCorrections:
    """Corrections found in a PACS.

    Attributes:
        linked: Number of each new correction by the name of its study.
        known: Objects that were taken before.
        own: Objects that segmed wrote.
        others: Objects of series that the archive has no result of.
        refused: SOPInstanceUID of each object that does not fit, or SeriesInstanceUID of a series
            that the PACS does not send, and the reason.
    """

    linked: dict[str, list[int]] = field(default_factory=dict)
    known: int = 0
    own: int = 0
    others: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def take_corrections(archive: ReviewArchive, source: RemoteSource[Any]) -> PacsCorrections:
    """Save the corrections of an archive that readers stored in a PACS, and accept them.

    An object counts if it refers to a series that the archive has a result of and segmed did not
    write it. Its reader has stored it, so it is accepted in the reader's name. Images that are in
    the PACS alone are fetched into the archive, for its review and for training.

    Args:
        archive: The archive.
        source: The PACS.

    Returns:
        What was found.

    Raises:
        ServiceError: The PACS does not list its series, or refuses the caller.
    """
    found = PacsCorrections()
    by_study: dict[str, list[ReviewedStudy]] = {}
    for study in archive.studies():
        uids = study.inputs[0].uids
        if uids:
            by_study.setdefault(uids[0], []).append(study)
    scratch = scratch_folder()
    try:
        for study_uid, studies in by_study.items():
            for series in source.segmentations(study_uid):
                place = scratch / "series"
                try:
                    source.fetch_series(study_uid, series.series_uid, place)
                except AccessDeniedError:
                    raise
                except ServiceError as error:
                    found.refused[series.series_uid] = f"cannot be fetched: {error}"
                    continue
                for path, dataset in _objects(place):
                    _take(archive, source, studies, path, dataset, found)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return found


def _objects(folder: Path) -> Iterator[tuple[Path, Dataset]]:
    for path in sorted(folder.iterdir()):
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, ValueError):
            continue
        if str(dataset.get("SOPClassUID", "")) in SEG_CLASSES:
            yield path, dataset


def _take(
    archive: ReviewArchive,
    source: RemoteSource[Any],
    studies: list[ReviewedStudy],
    path: Path,
    dataset: Dataset,
    found: PacsCorrections,
) -> None:
    """Save one object as a correction, or count why not."""
    uid = str(dataset.get("SOPInstanceUID", ""))
    if str(dataset.get("Manufacturer", "")).strip() == OWN_MANUFACTURER:
        found.own += 1
        return
    referenced = referenced_series(dataset)
    study = next((one for one in studies if referenced & set(one.inputs[0].uids[1:])), None)
    if study is None:
        found.others += 1
        return
    if any(one.uid == uid for one in archive.store.corrections(study.entry.key)):
        found.known += 1
        return
    try:
        number = _save(archive, source, study, path, dataset)
    except ServiceError:
        raise
    except SegmedError as error:
        found.refused[uid] = f"study {study.entry.study}: {' '.join(str(error).split())}"
        return
    found.linked.setdefault(study.entry.study, []).append(number)


def _save(
    archive: ReviewArchive,
    source: RemoteSource[Any],
    study: ReviewedStudy,
    path: Path,
    dataset: Dataset,
) -> int:
    item = study.inputs[0]
    folder = archive.fetched_folder(study)
    if not item.root and not folder.is_dir():
        fetch_images(source, item.uids, folder)
    image, labels = archive.image(study), archive.structures(study.entry).labels
    loaded = load_seg(path, grid=grid_of(image), labels=labels)
    require_joinable([source_of(image), loaded.source], ["the image", "the segmentation"])
    author = author_of(dataset)
    correction = archive.save(
        study,
        np.asarray(loaded.array)[0],
        author,
        origin="pacs",
        uid=str(dataset.SOPInstanceUID),
    )
    archive.store.add_opinion(
        study.entry.key, author, "accepted", "stored in the PACS", correction=correction.id
    )
    return correction.id


def fetch_images(source: RemoteSource[Any], uids: tuple[str, ...], folder: Path) -> None:
    """Fetch the series of an input into a folder that appears with all of them or not at all.

    Args:
        source: The PACS.
        uids: StudyInstanceUID, then SeriesInstanceUIDs.
        folder: Takes a folder for each series.

    Raises:
        ServiceError: The PACS does not answer, refuses, or sends only a part.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as draft:
        for number, series_uid in enumerate(uids[1:]):
            source.fetch_series(uids[0], series_uid, draft / str(number))


def referenced_series(dataset: Dataset) -> set[str]:
    """SeriesInstanceUIDs that an object refers to."""
    found = {
        str(item.get("SeriesInstanceUID", ""))
        for item in dataset.get("ReferencedSeriesSequence") or ()
    }
    return found - {""}


def author_of(dataset: Dataset) -> str:
    """Reader who made an object, by its content creator."""
    name = str(dataset.get("ContentCreatorName") or "").replace("^", " ")
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in name).split())
    return plain[:MAX_AUTHOR].strip() or UNNAMED
