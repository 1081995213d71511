"""Sandbox of `read_image`: read a file in a process of its own, which may crash or hang.

The child is forked for this one file, or for a batch of small ones, from a server without torch and
MONAI. It hands its result back as plain `.npy` files and JSON in a temporary folder; nothing is
unpickled. `segmed.io.batches` states what the files of a batch share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from segmed.errors import GeometryError, ImageError
from segmed.geometry import Grid
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.read import require_usable
from segmed.io.fork_server import run_isolated
from segmed.io.label_counts import LabelFacts
from segmed.io.limits import DEFAULT_LIMITS, ReadLimits, most_voxels
from segmed.io.scratch import scratch_space
from segmed.io.source import Loaded, Source
from segmed.structures import LabelClass


def load_series_isolated(
    audit: SeriesAudit,
    *,
    timeout_s: float = 300.0,
    memory_gb: float = 8.0,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Loaded:
    """`dicom.read.load_series` in a process of its own, for a series that has been scanned.

    Args:
        audit: What `dicom.scan` said of it.
        timeout_s: The child is killed after this many seconds.
        memory_gb: Address space of the child, in GiB.
        limits: As for `read_image`.

    Returns:
        The image.

    Raises:
        ImageError: The series is refused, or as from `load_isolated`.
    """
    require_usable(audit)
    affine = np.asarray(audit.affine_ras, dtype=np.float64)  # a usable audit has one
    series = {
        "series_uid": audit.series_uid,
        "study_uid": audit.study_uid,
        "files": [_absolute(path) for path in audit.files],
        "modality": audit.modality,
        "body_part": audit.body_part,
        "shape": audit.shape,
        "affine_ras": affine.tolist(),
        "slices": [(_absolute(path), asdict(part)) for path, part in audit.slices],
        "notes": audit.notes,
        "patient_key": audit.patient_key,
        "frame_of_reference": audit.frame_of_reference,
        "is_plane": audit.is_plane,
    }
    request = {"path": _absolute(audit.files[0]), "series": series}
    return _load(request, timeout_s, memory_gb, limits)


def _absolute(path: Path | str) -> str:
    return str(Path(path).absolute())


def load_isolated(
    path: Path | str,
    *,
    exact: bool = False,
    grid: Grid | None = None,
    labels: Sequence[LabelClass] = (),
    timeout_s: float = 300.0,
    memory_gb: float = 8.0,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Loaded:
    """`arrays.load` in a process of its own.

    Args:
        path: As for `arrays.load`.
        exact: As for `arrays.load`.
        grid: As for `arrays.load`.
        labels: As for `arrays.load`.
        timeout_s: The child is killed after this many seconds.
        memory_gb: Address space of the child, in GiB.
        limits: As for `arrays.load`.

    Returns:
        The image.

    Raises:
        ImageError: As `arrays.load` raises it; besides, `decoder_hung`, `decoder_crashed` and
            `out_of_memory`.
    """
    stated = [label.model_dump(mode="json") for label in labels]
    wish: dict[str, Any] = {"path": _absolute(path), "exact": exact, "labels": stated}
    if grid is not None:
        wish["grid"] = {"shape": grid.shape, "affine_ras": grid.affine_ras.tolist()}
    return _load(wish, timeout_s, memory_gb, limits)


def count_isolated(
    paths: Sequence[Path],
    *,
    timeout_s: float = 300.0,
    memory_gb: float = 8.0,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> list[LabelFacts | None]:
    """Values of several label files, counted in one process: a fork takes longer than a small file.

    Args:
        paths: Label files of formats that a compiled decoder reads, all of one origin.
        timeout_s: The process is killed after this many seconds; another one counts what is left.
        memory_gb: Address space of the process, in GiB.
        limits: As for `arrays.load`, for each file.

    Returns:
        The facts of each file; None for a file to be read alone, which names its fault.
    """
    batch = [(_absolute(path), True) for path in paths]
    found: list[LabelFacts | None] = []
    while len(found) < len(batch):
        wish = {"batch": batch[len(found) :], "is_counted": True}
        with _request(wish, timeout_s, memory_gb, limits) as folder:
            answers = _answers(folder, batch[len(found) :], timeout_s)
        found += [None if one is None else LabelFacts.from_record(one) for one in answers]
    return found


def load_together(
    files: Sequence[tuple[Path, bool]],
    *,
    decoded_bytes: int,
    timeout_s: float = 300.0,
    memory_gb: float = 8.0,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> list[Loaded | None]:
    """`arrays.load` of several small files in one process.

    Args:
        files: Files of formats that a compiled decoder reads, all of one origin, each with `exact`
            of `arrays.load`.
        decoded_bytes: No further file is read once the arrays have so many bytes together.
        timeout_s: The process is killed after this many seconds.
        memory_gb: Address space of the process, in GiB.
        limits: As for `arrays.load`, for each file.

    Returns:
        The images of the first files, one file at least; None for a file to be read alone: it was
        refused, or the process ended while it was read. Files behind it are for another process.
    """
    batch = [(_absolute(path), exact) for path, exact in files]
    wish = {"batch": batch, "is_counted": False, "decoded_bytes": decoded_bytes}
    with _request(wish, timeout_s, memory_gb, limits) as folder:
        return [
            None if answer is None else _loaded(answer, folder / f"{number}.npy")
            for number, answer in enumerate(_answers(folder, batch, timeout_s))
        ]


def _answers(folder: Path, batch: Sequence[tuple[str, bool]], timeout_s: float) -> list[Any]:
    """Have a batch served: answers to its first files, one at least, None as in `load_together`."""
    status = run_isolated(folder, timeout_s)
    place = folder / "answers.jsonl"
    lines = place.read_bytes().split(b"\n")[:-1] if place.is_file() else []  # the last is partial
    answers: list[Any] = []
    for number, (line, (path, _)) in enumerate(zip(lines, batch, strict=False)):
        *stated, answer = json.loads(line)
        if stated != [number, path]:
            break
        answers.append(answer)
    if status != 0 or not answers:
        answers.append(None)  # the file that was read when the process ended
    return answers[: len(batch)]


def _load(wish: dict[str, Any], timeout_s: float, memory_gb: float, limits: ReadLimits) -> Loaded:
    path = Path(wish["path"])
    with _request(wish, timeout_s, memory_gb, limits) as folder:
        status = run_isolated(folder, timeout_s)
        if status is None:
            raise ImageError(
                f"{path.name}: its decoder did not end within {timeout_s:g} s and was stopped",
                reason="decoder_hung",
                paths=[path],
            )
        return _result(path, folder, status)


@contextmanager
def _request(
    wish: dict[str, Any], timeout_s: float, memory_gb: float, limits: ReadLimits
) -> Iterator[Path]:
    """A folder with a request for the child, and for its answer."""
    with scratch_space() as folder:
        request = {
            **wish,
            "memory_bytes": int(memory_gb * 2**30),
            "cpu_s": math.ceil(timeout_s) + 1,
            "limits": asdict(replace(limits, max_voxels=most_voxels(limits))),
        }
        # A file, since the names of a long series are more than a pipe's buffer.
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        yield folder


def _result(path: Path, folder: Path, status: int) -> Loaded:
    """Return the image or the refusal that the child wrote."""
    answer_path = folder / "answer.json"
    if status != 0 or not answer_path.is_file():
        raise ImageError(
            f"{path.name}: its decoder crashed (exit status {status})",
            reason="decoder_crashed",
            paths=[path],
        )
    answer = json.loads(answer_path.read_text(encoding="utf-8"))
    if "reason" in answer:
        kind = GeometryError if answer["geometry"] else ImageError
        raise kind(answer["message"], reason=answer["reason"], paths=answer["paths"])
    return _loaded(answer, folder / "array.npy")


def _loaded(answer: dict[str, Any], array: Path) -> Loaded:
    """The image that the child wrote."""
    mapped = np.load(array, mmap_mode="r", allow_pickle=False)
    affine = np.asarray(answer["affine"], dtype=np.float64)
    return Loaded(np.array(mapped), affine, Source.from_json(answer["source"]))
