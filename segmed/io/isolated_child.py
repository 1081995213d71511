"""Server process of `isolated`: forks a child a request, which writes arrays or a refusal."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image
from pydicom.uid import AllTransferSyntaxes

from segmed.errors import GeometryError, ImageError
from segmed.geometry import Grid
from segmed.io.arrays import load
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.checks import is_decodable
from segmed.io.dicom.frames import Slice
from segmed.io.dicom.read import load_series
from segmed.io.label import as_integers
from segmed.io.label_counts import label_facts_of
from segmed.io.limits import ReadLimits, out_of_memory
from segmed.io.source import Loaded
from segmed.structures import LabelClass


def serve() -> None:
    """Fork a child for each folder that a line of stdin names, until stdin ends.

    The exit status of each goes to stdout as a line. Children have no way to write there.
    """
    answers = os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 1)
    _import_decoders()
    for line in sys.stdin.buffer:
        folder = json.loads(line)
        child = os.fork()
        if child == 0:
            os.close(answers)
            os.dup2(silence, 0)
            _serve_one(folder)
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _import_decoders() -> None:
    """Import the decoders once for all children."""
    Image.init()
    for syntax in AllTransferSyntaxes:
        if syntax.is_encapsulated:
            is_decodable(syntax)


def _serve_one(folder: str) -> NoReturn:
    """Serve a request in this child, and end."""
    status = 1
    try:
        main(folder)
        status = 0
    finally:
        os._exit(status)


def main(folder_name: str) -> None:
    """Serve one request.

    Args:
        folder_name: Folder with `request.json` (`memory_bytes`, `cpu_s`, `limits`, `path`, and
            `exact` or `series`; or `batch` in place of these), and where the answer goes.
    """
    folder = Path(folder_name)
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    bound = request["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    # If the parent is killed, nothing else stops a decoder that hangs.
    resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_s"],) * 2)
    if "batch" in request:
        _serve_batch(request, folder)
        return
    try:
        answer = _answer(request, folder)
    except ImageError as error:
        answer = _refusal(error)
    except MemoryError:
        answer = _refusal(out_of_memory(Path(request["path"])))
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _refusal(error: ImageError) -> dict[str, Any]:
    return {
        "reason": error.reason,
        "message": str(error),
        "geometry": isinstance(error, GeometryError),
        "paths": [str(path) for path in error.paths],
    }


def _answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    limits = ReadLimits(**request["limits"])
    if "series" in request:
        loaded = load_series(_audit(request["series"]), limits)
    else:
        labels = [LabelClass.model_validate(label) for label in request["labels"]]
        loaded = load(
            request["path"], limits, exact=request["exact"], grid=_grid(request), labels=labels
        )
    return _handed_back(loaded, folder / "array.npy")


def _handed_back(loaded: Loaded, place: Path) -> dict[str, Any]:
    np.save(place, loaded.array, allow_pickle=False)
    return {"affine": loaded.affine_ras.tolist(), "source": loaded.source.as_json()}


def _serve_batch(request: dict[str, Any], folder: Path) -> None:
    """Read file after file.

    The line of a file (number, path, answer) is written before the next one is read, which may end
    this process.
    """
    decoded = 0
    with (folder / "answers.jsonl").open("w", encoding="utf-8", buffering=1) as lines:
        for number, (path, exact) in enumerate(request["batch"]):
            answer, size = _answer_of_batch(request, path, exact, folder / f"{number}.npy")
            lines.write(json.dumps([number, path, answer]) + "\n")
            decoded += size
            if not request["is_counted"] and decoded >= request["decoded_bytes"]:
                return


def _answer_of_batch(
    request: dict[str, Any], path: str, exact: bool, place: Path
) -> tuple[Any, int]:
    """Answer to one file of a batch, and the bytes that are kept for it on disk.

    The answer is None for a file that is refused: read alone, it is refused with its reason.
    """
    try:
        loaded = load(path, ReadLimits(**request["limits"]), exact=exact)
        if request["is_counted"]:
            return label_facts_of(as_integers(loaded.array, Path(path))).as_record(), 0
        return _handed_back(loaded, place), loaded.array.nbytes
    except (ImageError, MemoryError):
        return None, 0


def _grid(request: dict[str, Any]) -> Grid | None:
    if "grid" not in request:
        return None
    affine = np.asarray(request["grid"]["affine_ras"], dtype=np.float64)
    return Grid(tuple(request["grid"]["shape"]), affine)


def _audit(series: dict[str, Any]) -> SeriesAudit:
    """A usable series, as far as reading its voxels needs it."""
    return SeriesAudit(
        series_uid=series["series_uid"],
        study_uid=series["study_uid"],
        files=tuple(Path(name) for name in series["files"]),
        usable=True,
        modality=series["modality"],
        body_part=series["body_part"],
        shape=tuple(series["shape"]),
        affine_ras=np.asarray(series["affine_ras"], dtype=np.float64),
        slices=tuple((Path(name), Slice(**part)) for name, part in series["slices"]),
        notes=tuple(series["notes"]),
        patient_key=series["patient_key"],
        frame_of_reference=series["frame_of_reference"],
        is_plane=series["is_plane"],
    )
