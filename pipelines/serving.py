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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from segmed import inference
from segmed.errors import UsageError
from segmed.io import grid_of, read_image, write_label
from segmed.manifest.content import image_digest
from segmed.outcomes import classify
from segmed.package import ModelPackage
from segmed.structures import LabelClass

OUTPUT_FOLDER = "segmentations"
"""Where segmentations go unless the parameter `output_dir` says otherwise."""

COLUMNS = ("image", "status", "reason", "segmentation", "volumes_ml", "flags", "model_hash")
"""Columns of the output, in order."""


class SegmentationModel(PythonModel):  # type: ignore[misc]  # MLflow is untyped to mypy
    """Segments the images that a table names."""

    def __init__(self) -> None:
        self._predictor: inference.Predictor | None = None
        self._package: ModelPackage | None = None
        self._taken: dict[Path, str] = {}
        self._naming = threading.Lock()  # MLflow's server answers several requests at once

    def load_context(self, context: PythonModelContext) -> None:
        """Load the package that lies among the model's artifacts, checked by its hash."""
        self._package = ModelPackage.load(Path(context.artifacts["package"]))
        self._predictor = inference.Predictor(self._package)

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
        folder = Path((params or {}).get("output_dir") or OUTPUT_FOLDER)
        given = [  # a cell without a value is NaN where another row has one
            {name: cell for name, cell in row.items() if isinstance(cell, str)}
            for row in model_input.to_dict("records")
        ]
        rows = [self._row(row, folder) for row in given]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _row(self, row: Mapping[Hashable, Any], folder: Path) -> dict[str, Any]:
        assert self._package is not None
        shown = str(row.get("image") or row.get("name") or "")
        blank = dict.fromkeys(COLUMNS, "") | {"image": shown, "model_hash": self._package.hash}
        try:
            if row.get("content"):
                with tempfile.TemporaryDirectory() as scratch:
                    path = Path(scratch) / Path(shown).name
                    path.write_bytes(_decoded(row["content"]))
                    return blank | self._segment(path, folder)
            return blank | self._segment(Path(shown), folder)
        except Exception as error:  # noqa: BLE001 - one bad image must not stop the rest
            why = classify(error)
            return blank | {"status": why.status, "reason": why.reason}

    def _output_for(self, path: Path, folder: Path) -> Path:
        """A file for a result that is nobody else's: images of one name have different contents."""
        digest = image_digest(path)
        stem = path.name.split(".")[0]
        plain = folder / f"{stem}_seg.nii.gz"
        with self._naming:
            owner = self._taken.get(plain)
            if owner == digest or (owner is None and not plain.exists()):
                self._taken[plain] = digest
                return plain
        return folder / f"{stem}_{digest[:16]}_seg.nii.gz"

    def _segment(self, path: Path, folder: Path) -> dict[str, Any]:
        assert self._package is not None
        assert self._predictor is not None
        image = read_image(path, num_channels=self._predictor.plan.in_channels)
        label = self._predictor.predict(image).label
        folder.mkdir(parents=True, exist_ok=True)
        output = self._output_for(path, folder)
        labels = self._package.plan.labels
        write_label(output, label, like=image, labels=labels)
        volumes = volumes_ml(np.asarray(label), labels, grid_of(image).spacing_mm)
        flags = [f"{name}: empty" for name, volume in volumes.items() if volume == 0.0]
        return {
            "status": "done",
            "segmentation": str(output),
            "volumes_ml": json.dumps(volumes),
            "flags": json.dumps(flags),
        }


def _decoded(content: str) -> bytes:
    """Content of a file that was sent as base64.

    Raises:
        UsageError: It is no base64.
    """
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise UsageError(f"the content is no base64 ({error}); encode the file again") from error


def volumes_ml(
    label: np.ndarray[Any, Any], labels: tuple[LabelClass, ...], spacing_mm: tuple[float, ...]
) -> dict[str, float]:
    """Volume of each structure in millilitres (of a 2D image: area in mm², over 1000)."""
    voxel = float(np.prod(spacing_mm)) / 1000.0
    return {entry.name: float((label == entry.value).sum()) * voxel for entry in labels}


set_model(SegmentationModel())
