"""The MLflow pyfunc: MLflow runs this file itself ("models from code"); nothing is pickled.

Input: a table with a column `image` (paths), or with columns `name` and `content` (base64 of a
file). Output: a row for each input with the path of its segmentation, volumes and flags.
"""

from __future__ import annotations

import base64
import json
import tempfile
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from segmed.errors import SegmedError, UsageError
from segmed.formats import OutputFormat
from segmed.inference import Predictor, Segmentation
from segmed.inference.pipeline import Pipeline, PipelineItem, in_order
from segmed.inference.writing import write_result
from segmed.io import grid_of
from segmed.io.channel_files import CaseFiles
from segmed.manifest.content import image_digest
from segmed.metatensor import MetaTensor
from segmed.outcomes import classify
from segmed.package import ModelPackage
from segmed.structures import LabelClass

OUTPUT_FOLDER = "segmentations"
"""Default folder of the segmentations; the parameter `output_dir` names another."""

COLUMNS = ("image", "status", "reason", "segmentation", "volumes_ml", "flags", "model_hash")
"""Columns of the output, in order."""


class SegmentationModel(PythonModel):
    """Segments the images that a table names."""

    def __init__(self) -> None:
        self._predictor: Predictor | None = None
        self._package: ModelPackage | None = None
        self._taken: dict[Path, str] = {}
        self._naming = threading.Lock()  # MLflow's server answers several requests at once

    def load_context(self, context: PythonModelContext) -> None:
        """Load the package among the model's artifacts, checked by its hash."""
        self._package = ModelPackage.load(Path(context.artifacts["package"]))
        self._predictor = Predictor(self._package)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Segment each row.

        Args:
            context: MLflow's; the package is already loaded.
            model_input: Column `image`, or columns `name` and `content`.
            params: `output_dir`, where segmentations go.

        Returns:
            A table with the columns `COLUMNS`; an image without a segmentation is a row with status
            `refused` or `failed` (see `segmed.outcomes`) and its reason.
        """
        assert self._package is not None
        assert self._predictor is not None
        folder = Path((params or {}).get("output_dir") or OUTPUT_FOLDER)
        given = [  # a cell without a value is NaN where another row has one
            {name: cell for name, cell in row.items() if isinstance(cell, str)}
            for row in model_input.to_dict("records")
        ]
        names = [row.get("image") or row.get("name") or "" for row in given]
        rows = [
            dict.fromkeys(COLUMNS, "") | {"image": name, "model_hash": self._package.hash}
            for name in names
        ]
        with tempfile.TemporaryDirectory() as scratch:
            items = []
            for number, row in enumerate(given):
                try:
                    path = _file_of(row, names[number], Path(scratch) / str(number))
                except (SegmedError, OSError, ValueError) as error:
                    rows[number] |= _misfortune(error)
                else:
                    case = CaseFiles(path.name, (path,))
                    items.append(PipelineItem(case, _ServedRow(number, path)))
            sink = _ServedFolder(self, folder, self._package.plan.labels)
            for end in in_order(Pipeline(self._predictor, sink).run(items)):
                cells = end.written if end.error is None else _misfortune(end.error)
                rows[end.origin.number] |= cells or {}
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def output_for(self, path: Path, folder: Path) -> Path:
        """A unique file for a result: images of one name have different contents."""
        digest = image_digest(path)
        stem = path.name.split(".")[0]
        plain = folder / f"{stem}_seg.nii.gz"
        with self._naming:
            owner = self._taken.get(plain)
            if owner == digest or (owner is None and not plain.exists()):
                self._taken[plain] = digest
                return plain
        return folder / f"{stem}_{digest[:16]}_seg.nii.gz"


@dataclass(frozen=True)
class _ServedRow:
    """One row of a request.

    Attributes:
        number: Number of the row, from 0.
        path: Its file.
    """

    number: int
    path: Path


class _ServedFolder:
    """Results of one request in a folder.

    Args:
        model: Names the results, also beside those of other requests.
        folder: Folder of the results.
        labels: The structures.
    """

    format: OutputFormat = "nifti"
    keeps_image = False

    def __init__(
        self, model: SegmentationModel, folder: Path, labels: tuple[LabelClass, ...]
    ) -> None:
        self._model = model
        self._folder = folder
        self._labels = labels

    def output_for(self, origin: _ServedRow, image: MetaTensor) -> Path:
        """File of the result of a row, named after its input."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._model.output_for(origin.path, self._folder)

    def write(
        self, origin: _ServedRow, output: Path, image: MetaTensor, found: Segmentation
    ) -> dict[str, Any]:
        """Write one result; its cells of the answer."""
        write_result(output, found, self.format, like=image, labels=self._labels)
        spacing_mm = grid_of(image).spacing_mm
        volumes = volumes_ml(np.asarray(found.label), self._labels, spacing_mm)
        flags = [f"{name}: empty" for name, volume in volumes.items() if volume == 0.0]
        return {
            "status": "done",
            "segmentation": str(output),
            "volumes_ml": json.dumps(volumes),
            "flags": json.dumps(flags),
        }


def _file_of(row: Mapping[Hashable, str], name: str, scratch: Path) -> Path:
    """The file of a row; content that was sent is written into `scratch`."""
    if not row.get("content"):
        return Path(name)
    content = _decoded(row["content"])
    scratch.mkdir()
    path = scratch / Path(name).name
    path.write_bytes(content)
    return path


def _misfortune(error: Exception) -> dict[str, str]:
    """Cells of a row without a segmentation."""
    why = classify(error)
    return {"status": why.status, "reason": why.reason}


def _decoded(content: str) -> bytes:
    """Content of a file that was sent as base64.

    Raises:
        UsageError: It is not base64.
    """
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise UsageError(f"the content is not base64 ({error}); encode the file again") from error


def volumes_ml(
    label: np.ndarray[Any, Any], labels: tuple[LabelClass, ...], spacing_mm: tuple[float, ...]
) -> dict[str, float]:
    """Volume of each structure in millilitres (of a 2D image: area in mm², over 1000)."""
    voxel = float(np.prod(spacing_mm)) / 1000.0
    return {entry.name: float(entry.mask(label).sum()) * voxel for entry in labels}


set_model(SegmentationModel())
