"""Segmentations of an archive by case: paired with references through the archive's index.

Outputs may be named by hash; `index.csv` says of which input each is. A reference belongs to the
input whose path ends with its name: `T1` or `sub-07/T1` to `scans/sub-07/T1.nii.gz`, `study1` to
the DICOM series in `archive/study1`. Its name may also be a UID or the name of the study.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from segmed.errors import UsageError
from segmed.formats import stem_of
from segmed.io.channel_files import NUMBERED
from segmed.io.results import ARCHIVE_OUTPUTS, INDEX

MORE_FILES = re.compile(r" and \d+ more$")
"""What the index adds to the first file of a series."""


def archive_of(predictions: Path) -> Path | None:
    """The output folder of an archive that a folder is, or whose segmentations it contains.

    Args:
        predictions: The folder; None is returned where neither it nor the one above has an index.
    """
    folders = [predictions, predictions.parent] if _is_outputs(predictions) else [predictions]
    return next((folder for folder in folders if (folder / INDEX).is_file()), None)


def _is_outputs(folder: Path) -> bool:
    return folder.resolve().name == ARCHIVE_OUTPUTS


def archive_files(archive: Path, cases: Iterable[str]) -> dict[str, Path]:
    """The segmentation of each case, as far as there is one.

    Args:
        archive: Output folder of an archive run, with its index.
        cases: Case ids.

    Raises:
        UsageError: A case id belongs to several inputs, or the file is not an index.
    """
    known: dict[str, dict[str, Path]] = defaultdict(dict)
    for row in _rows(archive / INDEX):
        source = row["input"] or row["uids"]
        for name in _names_of(row):
            known[name][source] = archive / row["output"]  # of several models the newest
    found = {}
    for case in cases:
        inputs = known.get(case, {})
        if len(inputs) > 1:
            shown = ", ".join(sorted(inputs)[:3])
            raise UsageError(
                f"the reference {case} may belong to {len(inputs)} inputs of the archive "
                f"({shown}): put references into folders named like those of the inputs"
            )
        if inputs:
            found[case] = next(iter(inputs.values()))
    return found


def _rows(index: Path) -> Iterator[dict[str, str]]:
    with index.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if not {"input", "output", "uids", "study", "status"} <= set(reader.fieldnames or ()):
            raise UsageError(f"{index} is not an index of an archive: another file has its name")
        yield from (row for row in reader if row["status"] == "done" and row["output"])


def _names_of(row: dict[str, str]) -> Iterator[str]:
    """Every case id by which an input may be meant."""
    yield row["study"]
    yield stem_of(Path(row["output"]))
    yield from row["uids"].split()
    if not row["input"]:
        return
    path = Path(MORE_FILES.sub("", row["input"]))
    if row["uids"]:  # a series: its folder
        yield from _tails(path.parent.parts)
        return
    stem = stem_of(path)
    yield from _tails((*path.parent.parts, stem))
    numbered = NUMBERED.fullmatch(stem)
    if numbered is not None:
        yield from _tails((*path.parent.parts, numbered["case"]))


def _tails(parts: tuple[str, ...]) -> Iterator[str]:
    for begin in range(len(parts)):
        yield "/".join(parts[begin:])
