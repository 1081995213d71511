"""Read an untrusted file in a process of its own, which may crash or hang without harm.

The child knows neither torch nor MONAI, so it starts in a fraction of a second. It hands its result
back as a plain `.npy` file and JSON in a temporary folder; nothing is unpickled.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from segmed.errors import GeometryError, ImageError
from segmed.io.dicom_audit import SeriesAudit
from segmed.io.dicom_read import require_usable
from segmed.io.limits import DEFAULT_LIMITS, ReadLimits
from segmed.io.source import Loaded, Source
from segmed.io.tensors import as_image, as_label

_START = """
import pathlib, sys, types
root = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(root))
# A stand-in for the package: its real __init__ imports MONAI, which takes seconds.
package = types.ModuleType("segmed.io")
package.__path__ = [str(root / "segmed" / "io")]
sys.modules["segmed.io"] = package
from segmed.io.isolated_child import main
main(sys.argv[2])
"""


def read_image_isolated(
    path: Path | str,
    *,
    timeout_s: float = 300.0,
    memory_gb: float = 8.0,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> MetaTensor:
    """`read_image` in a process of its own.

    Args:
        path: As for `read_image`.
        timeout_s: The child is killed after this many seconds.
        memory_gb: Address space of the child, in GiB.
        limits: As for `read_image`.

    Returns:
        The image.

    Raises:
        ImageError: As `read_image` raises it; besides, `decoder_hung`, `decoder_crashed` and
            `out_of_memory`.
    """
    return as_image(_load({"path": _absolute(path), "exact": False}, timeout_s, memory_gb, limits))


def read_series_isolated(
    audit: SeriesAudit,
    *,
    timeout_s: float = 300.0,
    memory_gb: float = 8.0,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> MetaTensor:
    """`dicom.read_series` in a process of its own, for a series that has been scanned.

    Args:
        audit: What `dicom.scan` said of it.
        timeout_s: The child is killed after this many seconds.
        memory_gb: Address space of the child, in GiB.
        limits: As for `read_image`.

    Returns:
        The image.

    Raises:
        ImageError: The series is refused, or as from `read_image_isolated`.
    """
    require_usable(audit)
    assert audit.affine_ras is not None
    series = {
        "series_uid": audit.series_uid,
        "study_uid": audit.study_uid,
        "files": [_absolute(path) for path in audit.files],
        "modality": audit.modality,
        "shape": audit.shape,
        "affine_ras": audit.affine_ras.tolist(),
        "slices": [(_absolute(path), asdict(part)) for path, part in audit.slices],
        "notes": audit.notes,
    }
    request = {"path": _absolute(audit.files[0]), "series": series}
    return as_image(_load(request, timeout_s, memory_gb, limits))


def _absolute(path: Path | str) -> str:
    return str(Path(path).absolute())


def read_label_isolated(
    path: Path | str,
    *,
    timeout_s: float = 300.0,
    memory_gb: float = 8.0,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> MetaTensor:
    """`read_label` in a process of its own; see `read_image_isolated`."""
    return as_label(_load({"path": _absolute(path), "exact": True}, timeout_s, memory_gb, limits))


def _load(wish: dict[str, Any], timeout_s: float, memory_gb: float, limits: ReadLimits) -> Loaded:
    path = Path(wish["path"])
    with tempfile.TemporaryDirectory(prefix="segmed-read-") as name:
        folder = Path(name)
        request = {
            **wish,
            "memory_bytes": int(memory_gb * 2**30),
            "limits": limits.__dict__,
        }
        # A file, since the names of a long series are more than a command line may hold.
        (folder / "request.json").write_text(json.dumps(request))
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-I", "-c", _START, str(root), name]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise ImageError(
                f"{path.name}: its decoder did not end within {timeout_s:g} s and was stopped",
                reason="decoder_hung",
                paths=[path],
            ) from error
        return _result(path, folder, done.returncode)


def _result(path: Path, folder: Path, status: int) -> Loaded:
    """What the child left behind."""
    answer_path = folder / "answer.json"
    if status != 0 or not answer_path.is_file():
        raise ImageError(
            f"{path.name}: its decoder crashed (exit status {status})",
            reason="decoder_crashed",
            paths=[path],
        )
    answer = json.loads(answer_path.read_text())
    if "reason" in answer:
        kind = GeometryError if answer["geometry"] else ImageError
        raise kind(answer["message"], reason=answer["reason"], paths=answer["paths"])
    mapped = np.load(folder / "array.npy", mmap_mode="r", allow_pickle=False)
    affine = np.asarray(answer["affine"], dtype=np.float64)
    return Loaded(np.array(mapped), affine, Source.from_json(answer["source"]))
