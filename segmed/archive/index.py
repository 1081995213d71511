"""The index of an archive: the input of every output, and the outputs of every input.

`index.csv` beside the ledger is for people and programs, and readable to its owner alone: paths may
name patients. `find_inputs_of` answers from the ledger, also for folders without an index.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segmed.archive.ledger import Ledger, State
from segmed.archive.ledger.inputs import InputOf
from segmed.errors import UsageError
from segmed.io.atomic import whole_file
from segmed.io.digest import sha256_of_file
from segmed.io.head import looks_like_dicom
from segmed.io.output_names import absolute
from segmed.io.results import INDEX, LEDGER, is_archive_outputs

MODELS_FILE = "model.json"
"""Name and version of each model that outputs are from, by hash; written by the command line."""

STATUS: dict[State, str] = {
    "done": "done",
    "refused": "refused",
    "failed": "failed",
    "pending": "pending",
    "running": "pending",
    "replaced": "replaced",
}


@dataclass(frozen=True)
class IndexRow:
    """An output, the input that it was made of, and what became of it.

    Attributes:
        output: The segmentation, relative to the output folder; empty without one.
        status: `done`, `refused`, `failed`, `pending`, or `replaced` by a newer state of the input.
        reason: Code of the refusal or failure, or empty.
        message: One line about it, or empty.
        input: Path of the input, of a DICOM series that of its first file; empty for a PACS.
        uids: StudyInstanceUID and SeriesInstanceUIDs, separated by blanks.
        fetch_again: Files to fetch again after a refusal.
        model: The model as named by the user, if known.
        version: Its version in the registry, if it has one.
        package: Hash of the model package.
        flags: Quality flags, separated by blanks.
        volumes_ml: Volume of each structure, in ml.
        study: Name of the study in reports.
        key: Key of the entry in the ledger.
        form: Form of the source.
        notes: Remarks on the input and the result, separated by semicolons.
    """

    output: str
    status: str
    reason: str
    message: str
    input: str
    uids: str
    fetch_again: tuple[str, ...]
    model: str
    version: str
    package: str
    flags: str
    volumes_ml: dict[str, float]
    study: str
    key: str
    form: str
    notes: str = ""


def write_index(ledger: Ledger, out_dir: Path) -> Path:
    """Write `index.csv`, one row at a time, whole or not at all.

    Args:
        ledger: The ledger.
        out_dir: The output folder.

    Returns:
        The file, readable to its owner alone.
    """
    path = out_dir / INDEX
    models = models_of(out_dir)
    columns = list(IndexRow.__dataclass_fields__)
    with (
        whole_file(path, private=True) as draft,
        draft.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(columns)
        for item in ledger.inputs_with():
            row = asdict(_row(item, models))
            row["fetch_again"] = "\n".join(row["fetch_again"])
            row["volumes_ml"] = json.dumps(row["volumes_ml"], ensure_ascii=False)
            writer.writerow([row[name] for name in columns])
    return path


def ensure_index(folder: Path) -> None:
    """Write the index of an output folder that has a ledger and no index, as older versions left.

    Args:
        folder: Output folder of an archive run, or the segmentations in it; else nothing is done.
    """
    for out_dir in (folder, folder.resolve().parent):
        is_of_run = out_dir == folder or is_archive_outputs(folder.resolve())
        if is_of_run and (out_dir / LEDGER).is_file() and not (out_dir / INDEX).exists():
            with Ledger(out_dir / LEDGER, writer=False) as ledger:
                write_index(ledger, out_dir)


def list_index(out_dir: Path) -> Iterator[IndexRow]:
    """All outputs and inputs of an archive, in the order of the inputs.

    Raises:
        UsageError: There is no ledger.
    """
    return find_inputs_of(out_dir, ())


def find_inputs_of(out_dir: Path, texts: Sequence[str]) -> Iterator[IndexRow]:
    """Outputs and inputs that each of some texts belongs to.

    Args:
        out_dir: The output folder of an archive.
        texts: Part of a path, UID, output name, study or reason; or the path of a file: an input,
            a slice of a series, or an output, also one that was renamed or moved elsewhere.

    Raises:
        UsageError: There is no ledger.
    """
    models = models_of(out_dir)
    with Ledger(out_dir / LEDGER, writer=False) as ledger:
        for item in ledger.inputs_with([_meanings(text, out_dir) for text in texts]):
            yield _row(item, models)


def archives_near(texts: Iterable[str]) -> list[Path]:
    """Output folders that are meant without being named.

    Args:
        texts: What is searched for.

    Returns:
        The folder with a ledger above one of the texts that are paths; else the working folder or
        those of its folders that have a ledger.

    Raises:
        UsageError: There is none.
    """
    for text in texts:
        path = Path(absolute(Path(text)))
        if os.path.lexists(path):
            for folder in (path, *path.parents):
                if (folder / LEDGER).is_file():
                    return [folder]
    here = Path()
    found = [folder for folder in (here, *sorted(here.iterdir())) if (folder / LEDGER).is_file()]
    if not found:
        raise UsageError(
            f"no {LEDGER} in {here.resolve()} nor in a folder below: name the output folder of the "
            "archive run by --out DIR"
        )
    return found[:1] if found[0] == here else found


def _row(item: InputOf, models: dict[str, dict[str, Any]]) -> IndexRow:
    entry = item.entry
    model = models.get(entry.package, {})
    is_refused = entry.state in {"refused", "failed"}
    path = str(Path(item.root) / item.place) if item.place and not _is_remote(item) else ""
    return IndexRow(
        output=entry.output or "" if entry.state == "done" else "",
        status=STATUS[entry.state],
        reason=entry.reason,
        message=entry.message,
        input=path,
        uids=" ".join(item.uids) or (item.place.removeprefix("series ") if not path else ""),
        fetch_again=(item.faulty or ((path,) if path else ())) if is_refused else (),
        model=str(model.get("model") or ""),
        version=str(model.get("version") or ""),
        package=entry.package,
        flags=" ".join(entry.measures.get("flags", ())),
        volumes_ml=entry.measures.get("volumes_ml", {}),
        study=entry.study,
        key=entry.key,
        form=entry.form,
        notes="; ".join(entry.measures.get("notes", ())),
    )


def _is_remote(item: InputOf) -> bool:
    """Return whether the place of an input is that of series in a PACS, which has no path."""
    return not item.root and item.entry.form == "dicom" and item.place.startswith("series ")


def _meanings(text: str, out_dir: Path) -> list[str]:
    """Return the ledger names that a text may denote: itself and those of the file at that path."""
    path = Path(text)
    if not os.path.lexists(path):
        return [text]
    place = Path(absolute(path))
    found = [text, str(place)] if path.name else [str(place)]
    if place.is_relative_to(absolute(out_dir)):
        found = [str(place.relative_to(absolute(out_dir)))]
    if path.is_file():
        found += [sha256_of_file(path), *_uids_in(path)]
    return found


def _uids_in(path: Path) -> list[str]:
    """SeriesInstanceUIDs that a DICOM file names: its own, and those that it was derived from."""
    with path.open("rb") as stream:
        if not looks_like_dicom(stream.read(132)):
            return []
    import pydicom  # noqa: PLC0415 - only where a DICOM file is asked about
    from pydicom.errors import InvalidDicomError  # noqa: PLC0415 - of DICOM alone

    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        referenced = dataset.get("ReferencedSeriesSequence") or ()
        uids = [dataset.get("SeriesInstanceUID"), *(s.get("SeriesInstanceUID") for s in referenced)]
    except (InvalidDicomError, OSError, ValueError, AttributeError, KeyError, EOFError):
        return []
    return [str(uid) for uid in uids if uid]


def models_of(out_dir: Path) -> dict[str, dict[str, Any]]:
    """Name and version of models by hash; empty where the command line has written none."""
    try:
        found = json.loads((out_dir / MODELS_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
