"""What runs in the child process of `isolated`: read one file, leave an array or a refusal."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np

from segmed.errors import GeometryError, ImageError
from segmed.io.arrays import load
from segmed.io.limits import ReadLimits


def main(request_text: str) -> None:
    """Serve one request.

    Args:
        request_text: JSON with `path`, `folder`, `memory_bytes`, `limits` and `exact`.
    """
    request = json.loads(request_text)
    folder = Path(request["folder"])
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
    loaded = load(request["path"], limits, exact=request["exact"])
    np.save(folder / "array.npy", loaded.array, allow_pickle=False)
    return {"affine": loaded.affine_ras.tolist(), "source": loaded.source.as_json()}
