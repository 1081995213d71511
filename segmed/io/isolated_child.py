"""What runs in the child process of `isolated`: read one file, leave an array or a refusal."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np

from segmed.errors import GeometryError, ImageError
from segmed.io.arrays import load
from segmed.io.dicom_audit import SeriesAudit
from segmed.io.dicom_frames import Slice
from segmed.io.dicom_read import load_series
from segmed.io.limits import ReadLimits


def main(folder_name: str) -> None:
    """Serve one request.

    Args:
        folder_name: Folder that holds `request.json` (`memory_bytes`, `limits`, `path`, and either
            `exact` or `series`), and where the answer goes.
    """
    folder = Path(folder_name)
    request = json.loads((folder / "request.json").read_text())
    bound = request["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    try:
        answer = _answer(request, folder)
    except ImageError as error:
        answer = {
            "reason": error.reason,
            "message": str(error),
            "geometry": isinstance(error, GeometryError),
            "paths": [str(path) for path in error.paths],
        }
    except MemoryError:
        name = Path(request["path"]).name
        answer = {
            "reason": "out_of_memory",
            "message": f"{name}: reading it needs more than {bound / 2**30:g} GiB of memory",
            "geometry": False,
            "paths": [request["path"]],
        }
    (folder / "answer.json").write_text(json.dumps(answer))


def _answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    limits = ReadLimits(**request["limits"])
    if "series" in request:
        loaded = load_series(_audit(request["series"]), limits)
    else:
        loaded = load(request["path"], limits, exact=request["exact"])
    np.save(folder / "array.npy", loaded.array, allow_pickle=False)
    return {"affine": loaded.affine_ras.tolist(), "source": loaded.source.as_json()}


def _audit(series: dict[str, Any]) -> SeriesAudit:
    """A usable series, as far as reading its voxels needs it."""
    return SeriesAudit(
        series_uid=series["series_uid"],
        study_uid=series["study_uid"],
        files=tuple(Path(name) for name in series["files"]),
        usable=True,
        modality=series["modality"],
        shape=tuple(series["shape"]),
        affine_ras=np.asarray(series["affine_ras"], dtype=np.float64),
        slices=tuple((Path(name), Slice(**part)) for name, part in series["slices"]),
        notes=tuple(series["notes"]),
    )
