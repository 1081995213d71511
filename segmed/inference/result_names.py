"""Names of the results of a prediction: those of the inputs, in the same relative folders.

A name is a function of its input alone, never of what else was given: two inputs whose results
would have one name are both refused. A file that exists is replaced only if it is recorded as the
earlier result of the same input.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from segmed.errors import UsageError
from segmed.formats import PLANE_FORMAT, RASTER_FORMATS, OutputFormat
from segmed.inference.writing import suffix_for
from segmed.io import source_of
from segmed.io.channel_files import CaseFiles
from segmed.io.digest import sha256_of_file, sha256_of_text
from segmed.io.head import FileHead, sniff
from segmed.io.output_names import (
    NameKind,
    absolute,
    folded,
    is_same_file,
    mirrored,
    shown,
    with_suffix,
)
from segmed.io.results import RUN_RECORD
from segmed.metatensor import MetaTensor

ORIGINS_FILE = ".segmed-results.jsonl"
"""Input of each result in a folder; hidden, and readable by its owner alone: paths may name
patients."""

HASH_LENGTH = 16


class ResultNames:
    """Output paths of one prediction.

    Args:
        out_dir: Folder of the results.
        output_format: One of `segmed.inference.writing.FORMATS`.
        items: All inputs.
        roots: Folders that were given: results keep the paths of their inputs relative to these.
        names: Kind of names; None: of image files `source`, of DICOM series `hash`.
    """

    def __init__(
        self,
        out_dir: Path,
        output_format: OutputFormat,
        items: Sequence[CaseFiles],
        *,
        roots: Sequence[Path] = (),
        names: NameKind | None = None,
    ) -> None:
        self.format = output_format
        self.out_dir = out_dir
        self._roots = sorted(set(roots), key=lambda root: -len(root.parts))
        self._names = names
        self._origins = _read_origins(out_dir)
        self._used: dict[str, Path] = {}
        self._rivals = self._find_rivals(items)

    def path_for(self, item: CaseFiles, like: MetaTensor) -> Path:
        """The file of an input's result; recorded as such.

        Args:
            item: The input.
            like: Its image, or shape, affine and source.

        Raises:
            UsageError: The result would replace an input, the result of another input, or a file
                of unknown origin.
        """
        first = item.files[0]
        suffix = suffix_for(self.format, like)
        if first in self._rivals:
            raise UsageError(_rivalry(first, self._rivals[first], self._place(item) + suffix))
        place = self._place(item) if self._is_by_source(like) else _hashed(item, like)
        name = with_suffix(place, suffix)
        other = self._used.setdefault(folded(name), first)
        if other != first:
            raise UsageError(_rivalry(first, [other], name))
        result = self.out_dir / name
        self._require_free(result, item)
        self._record(name, first)
        return result

    def _is_by_source(self, like: MetaTensor) -> bool:
        if self._names is not None:
            return self._names == "source"
        source = source_of(like)
        return source is None or not source.series_uid

    def _find_rivals(self, items: Sequence[CaseFiles]) -> dict[Path, list[Path]]:
        """The inputs whose results would have one name, each with the others."""
        if self._names == "hash":
            return {}
        by_name: dict[tuple[str, bool], list[Path]] = defaultdict(list)
        for item in items:
            is_dicom, is_flat = _look(item.sniffed[0])
            if self._names == "source" or not is_dicom:
                flat = is_flat and self.format == "nifti"
                by_name[folded(self._place(item)), flat].append(item.files[0])
        groups = [paths for paths in by_name.values() if len(paths) > 1]
        return {path: [p for p in group if p != path] for group in groups for path in group}

    def _place(self, item: CaseFiles) -> str:
        """Relative path and name of an input, without suffix."""
        path = item.files[0]
        for root in self._roots:
            if path == root:
                return mirrored(Path(), Path(absolute(path)).name)
            if path.is_relative_to(root):
                return mirrored(path.parent.relative_to(root), item.case)
        return mirrored(Path(), Path(absolute(path)).name if path.is_dir() else item.case)

    def _require_free(self, result: Path, item: CaseFiles) -> None:
        if not os.path.lexists(result):
            return
        is_ours = self._origins.get(absolute(result)) == absolute(item.files[0])
        if is_ours and not is_same_file(result, item.files):
            return
        if is_same_file(result, item.files):
            raise UsageError(
                f"the result would replace its input {shown(item.files[0].name)}: give another "
                "folder"
            )
        raise UsageError(
            f"{shown(result)} exists and is not an earlier result of this input: remove it, or "
            "give another folder"
        )

    def _record(self, name: str, path: Path) -> None:
        self._origins[absolute(self.out_dir / name)] = absolute(path)
        line = json.dumps({"output": name, "input": absolute(path)}) + "\n"
        handle = os.open(self.out_dir / ORIGINS_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(line)


def _rivalry(path: Path, others: Sequence[Path], name: str) -> str:
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    clash = f"{shown(path)} and {shown(others[0])}{more} would have one result, {name}"
    if path.parent == others[0].parent:
        return f"{clash}: rename one, or name results by --names hash"
    return (
        f"{clash}: give the folder that contains both, whose tree the results mirror, or name "
        "results by --names hash"
    )


def _hashed(item: CaseFiles, like: MetaTensor) -> str:
    source = source_of(like)
    if source is not None and source.series_uid:
        stated: tuple[str, ...] = (source.patient_key, source.study_uid, source.series_uid)
        if source.format == PLANE_FORMAT:  # one of the images of a series
            stated = (*stated, sha256_of_file(source.paths[0]))
        digest = sha256_of_text("\n".join(stated))
        return f"series-{digest[:HASH_LENGTH]}"
    files = item.files if source is None else (*item.files, *source.paths)
    digests = sorted({sha256_of_file(path) for path in files if path.is_file()})
    return f"image-{sha256_of_text(' '.join(digests))[:HASH_LENGTH]}"


def _look(file: Path | FileHead) -> tuple[bool, bool]:
    """Return whether an input is DICOM and whether it is a raster image, as far as readable.

    A raster image of several pages has a volume as its result: `ResultNames` finds that later.
    """
    if isinstance(file, Path) and file.is_dir():
        return True, False
    try:
        found = sniff(file).format
    except OSError:
        return False, False
    return found == "dicom", found in RASTER_FORMATS


def _read_origins(out_dir: Path) -> dict[str, str]:
    """Input of each result that is recorded in a folder, both as absolute paths."""
    origins = {}
    try:
        record = json.loads((out_dir / RUN_RECORD).read_bytes())
        for entry in record["outcomes"]:
            if entry["output"]:
                origins[absolute(Path(entry["output"]))] = absolute(Path(entry["input"]))
    except (OSError, ValueError, TypeError, KeyError):
        pass  # no record, or one of another program
    try:
        lines = (out_dir / ORIGINS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return origins
    for line in lines:
        try:
            entry = json.loads(line)
            origins[absolute(out_dir / entry["output"])] = entry["input"]
        except (ValueError, TypeError, KeyError):
            continue  # cut off by a kill
    return origins
