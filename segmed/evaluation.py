"""Segment cases whose answer is known, and score them; or score what others segmented."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from segmed.errors import ManifestError, SegmedError, UsageError
from segmed.geometry import require_same_grid
from segmed.inference import Predictor
from segmed.io import grid_of, read_images, read_label, source_of, write_label
from segmed.io.joining import require_joinable
from segmed.manifest.reference import read_reference
from segmed.manifest.schema import Case, Manifest
from segmed.metatensor import MetaTensor
from segmed.metrics import CaseScore, evaluate_case, scores_table
from segmed.structures import LabelClass

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png")
"""Files that `score_folders` takes for label maps, the longest suffix first."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluated:
    """What came of segmenting cases whose answer is known.

    Attributes:
        table: One row a case and label, as from `segmed.metrics.scores_table`.
        predictions: The written segmentation of each case, by case id.
        seconds_per_case: Mean wall time of a segmentation, reading and writing excluded, in s.
    """

    table: pd.DataFrame
    predictions: dict[str, Path]
    seconds_per_case: float


def score_cases(
    predictor: Predictor,
    manifest: Manifest,
    cases: Sequence[Case],
    *,
    out_dir: Path,
    progress: Progress | None = None,
) -> Evaluated:
    """Segment labelled cases on their own grids, write the results and score them.

    Args:
        predictor: Loaded model.
        manifest: The image set that the cases are from.
        cases: Cases with labels, none of which the model was trained on.
        out_dir: Folder for one segmentation a case.
        progress: Called with cases done and cases in all.

    Returns:
        Scores, files and time.

    Raises:
        UsageError: There is no case.
        ManifestError: A case has no label or cannot be read; the message names it.
    """
    if not cases:
        raise UsageError("no case to score: choose a fold that holds some out")
    scores: list[CaseScore] = []
    predictions: dict[str, Path] = {}
    seconds = 0.0
    for case in cases:
        image, reference = _read(manifest, case)
        found = predictor.predict(image)
        seconds += found.seconds
        path = out_dir / f"{case.id}.nii.gz"
        if image.ndim == 3:
            path = out_dir / f"{case.id}.png"
        predictions[case.id] = write_label(path, found.label, like=image, labels=manifest.labels)
        scores += evaluate_case(
            found.label[0],
            reference[0],
            labels=manifest.labels,
            spacing_mm=grid_of(reference).spacing_mm,
            case_id=case.id,
        )
        if progress is not None:
            progress(len(predictions), len(cases))
    return Evaluated(scores_table(scores), predictions, seconds / len(cases))


def _read(manifest: Manifest, case: Case) -> tuple[MetaTensor, MetaTensor]:
    label_path = manifest.label_path(case)
    if label_path is None:
        raise ManifestError(f"case {case.id} has no label to score against")
    try:
        image = read_images(manifest.image_paths(case), num_channels=manifest.num_channels)
        reference = read_reference(manifest, label_path, like=image)
        require_same_grid(grid_of(image), grid_of(reference), names=("image", "label"))
    except SegmedError as error:
        raise ManifestError(f"case {case.id}: {error}") from error
    return image, reference


def score_folders(
    predictions: Path,
    references: Path,
    *,
    labels: Sequence[LabelClass],
    tolerance_mm: float = 1.0,
    workers: int = 2,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Score the label maps of one folder against those of the same name in another.

    Args:
        predictions: Folder of label maps, whoever made them.
        references: Folder of reference label maps; each must have a prediction.
        labels: Structures to score.
        tolerance_mm: Tolerance of NSD and boundary IoU, in mm.
        workers: Threads.
        progress: Called with cases done and cases in all.

    Returns:
        One row a case and label.

    Raises:
        UsageError: A folder is missing or empty, or a reference has no prediction.
        ImageError: A file cannot be read correctly, or lies on another grid; the case is named.
    """
    wanted, found = label_files(references), label_files(predictions)
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UsageError(
            f"{len(missing)} of {len(wanted)} references have no prediction in {predictions}: "
            f"{shown}; a missing case is not left out of a mean, so predict it first"
        )

    def score(case_id: str) -> list[CaseScore]:
        reference, prediction = read_label(wanted[case_id]), read_label(found[case_id])
        names = (f"the prediction of {case_id}", "its reference")
        require_joinable([source_of(prediction), source_of(reference)], names)
        require_same_grid(grid_of(prediction), grid_of(reference), names=names)
        return evaluate_case(
            prediction[0],
            reference[0],
            labels=labels,
            spacing_mm=grid_of(reference).spacing_mm,
            case_id=case_id,
            tolerance_mm=tolerance_mm,
        )

    scores: list[CaseScore] = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for done, rows in enumerate(pool.map(score, sorted(wanted)), start=1):
            scores += rows
            if progress is not None:
                progress(done, len(wanted))
    return scores_table(scores)


def label_files(folder: Path) -> dict[str, Path]:
    """Label maps of a folder by case id; hidden files are left out.

    Args:
        folder: The folder; its subfolders are not searched.

    Raises:
        UsageError: There is no such folder, or no label map in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder of label maps")
    files = {}
    for path in sorted(folder.iterdir()):
        suffix = next((end for end in IMAGE_SUFFIXES if path.name.endswith(end)), None)
        if suffix is not None and not path.name.startswith("."):
            files[path.name.removesuffix(suffix)] = path
    if not files:
        raise UsageError(f"{folder} holds no label map ({', '.join(IMAGE_SUFFIXES)})")
    return files
