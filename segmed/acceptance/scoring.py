"""Segment and score the local cases; a refused case is counted, and the others continue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from segmed.acceptance.calibration import PredictedCase
from segmed.acceptance.predicted import predicted_case
from segmed.archive.model import model_of
from segmed.errors import ManifestError, UsageError
from segmed.evaluation import Progress, Scored, ScoringSink, segmented_cases
from segmed.inference import Predictor, Segmentation
from segmed.inference.pipeline import PipelineEnd
from segmed.io.digest import sha256_of_parts
from segmed.manifest.schema import Case, Manifest
from segmed.metatensor import MetaTensor
from segmed.metrics import CaseScores
from segmed.metrics.measures import measure
from segmed.metrics.quality import ShapeRange
from segmed.outcomes import classify
from segmed.training.device import choose_device
from segmed.training.memory import peak_memory_mb

VOLUME_AXES = 4
"""Axes of a volume with its channels."""


@dataclass
class LocalResults:
    """Scores of a model on the cases of a site, and all that its dossier is made of.

    Attributes:
        table: One row a case and structure, as from `segmed.metrics.scores_table`.
        cases: Scored cases, in order.
        patients: Patient of each case, also of those that were refused.
        values: Scanner, protocol, age decade and sex of each case, as far as stated.
        refused: Reason code of each case that was refused or failed.
        measures: Measures of image and result of each scored case, for drift.
        contents: SHA-256 of the voxels of each scored case.
        predicted: Predicted quality of each scored case, where the model predicts it.
        predictions: Segmentation of each scored case.
        seconds: Wall time of each scored case: preparation, network and inverse.
        memory_mb: Largest memory of the process (on a GPU: of the device).
    """

    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    cases: list[str] = field(default_factory=list)
    patients: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    predicted: dict[str, PredictedCase] = field(default_factory=dict)
    predictions: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: float | None = None


def content_of(image: MetaTensor) -> str:
    """SHA-256 of shape and voxels: equal for copies of an image in other files.

    A volume is turned to the axes that are nearest to right, anterior, superior, so that files
    which store it in other orders of the axes have one digest.

    Args:
        image: `[C, *spatial]`, as read.
    """
    values = image.as_tensor().cpu().numpy().astype(np.float32)
    if values.ndim == VOLUME_AXES:
        order = nib.orientations.io_orientation(np.asarray(image.affine, dtype=np.float64))
        values = np.stack([nib.orientations.apply_orientation(one, order) for one in values])
    return sha256_of_parts(repr(values.shape).encode(), np.ascontiguousarray(values).data)


class AcceptanceSink(ScoringSink):
    """Results in a folder, scored, and measured as an archive measures its studies.

    Args:
        manifest: The image set of the cases.
        out_dir: Folder for one segmentation a case.
        scores: What a result is scored by.
        results: Where measures and digests go.
        ranges: Ranges of the structures in training.
        cases: The cases in the order in which they are scored.
    """

    keeps_image = True

    def __init__(
        self,
        manifest: Manifest,
        out_dir: Path,
        scores: CaseScores,
        results: LocalResults,
        ranges: Sequence[ShapeRange],
        cases: Sequence[Case],
    ) -> None:
        super().__init__(manifest, out_dir, scores, cases=cases)
        self._labels = manifest.labels
        self._results = results
        self._ranges = ranges

    def write(self, origin: Case, output: Path, image: MetaTensor, found: Segmentation) -> Scored:
        """Write, score and measure one result."""
        written = super().write(origin, output, image, found)
        self._results.measures[origin.id] = measure(
            image, found.label, self._labels, ranges=self._ranges
        )
        self._results.contents[origin.id] = content_of(image)
        if found.quality is not None:
            self._results.predicted[origin.id] = predicted_case(found.quality)
        return written


def score_site(
    predictor: Predictor,
    manifest: Manifest,
    cases: Sequence[Case],
    *,
    out_dir: Path,
    progress: Progress | None = None,
) -> LocalResults:
    """Segment and score the labelled cases of a site.

    Args:
        predictor: Loaded model.
        manifest: The image set of the cases.
        cases: Cases with labels, none of which the model was trained on.
        out_dir: Folder for one segmentation a case.
        progress: Called with cases done and cases in all.

    Returns:
        Scores and measures; cases that were refused are in `refused` alone.

    Raises:
        UsageError: There is no case, or the manifest has other channels or labels than the model.
        ManifestError: A case has no label; or every case was refused.
    """
    if not cases:
        raise UsageError("no labelled case to score: give a manifest with labels")
    scores, results = CaseScores(manifest.encoding), LocalResults()
    ranges = model_of(predictor.packages).ranges
    sink = AcceptanceSink(manifest, out_dir, scores, results, ranges, cases)
    for case, end in segmented_cases(predictor, manifest, cases, sink, progress=progress):
        results.patients[case.id] = case.group
        _keep(results, scores, case, end)
    if not results.cases:
        reasons = ", ".join(sorted(set(results.refused.values())))
        raise ManifestError(
            f"all {len(cases)} cases were refused ({reasons}): `segmed manifest check` names each"
        )
    results.table = scores.table()
    results.memory_mb = round(peak_memory_mb(choose_device(str(predictor.device))), 1)
    return results


def _keep(
    results: LocalResults, scores: CaseScores, case: Case, end: PipelineEnd[Case, Scored]
) -> None:
    if end.error is not None:
        results.refused[case.id] = classify(end.error).code
        return
    assert end.written is not None  # without an error there is one
    results.predictions[case.id], rows = end.written
    scores.add(rows)
    results.cases.append(case.id)
    results.seconds[case.id] = end.seconds["prepare"] + end.seconds["predict"]


def labelled(cases: Iterable[Case]) -> list[Case]:
    """Cases that have a reference."""
    return [case for case in cases if case.label is not None]
