"""Segment cases with references and score the results; or score segmentations from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd
from PIL.Image import Image

from segmed.doors import checked
from segmed.encoding import LabelEncoding
from segmed.errors import ManifestError, SegmedError, UsageError
from segmed.formats import OutputFormat
from segmed.given import manifest_of
from segmed.inference import Predictor, Segmentation
from segmed.inference.pipeline import Pipeline, PipelineEnd, PipelineItem
from segmed.inference.writing import suffix_for, write_result
from segmed.io import grid_of
from segmed.io.batched_work import over_runs, runs_of
from segmed.io.channel_files import CaseFiles
from segmed.io.scratch import scratch_space
from segmed.manifest.case_reader import CaseReader
from segmed.manifest.schema import MOST_SHOWN, Case, Manifest
from segmed.metatensor import MetaTensor
from segmed.metrics import CaseScore, CaseScores
from segmed.metrics.label_pairs import (
    PairsAhead,
    StrayValue,
    label_files,
    prediction_files,
    read_pair,
)
from segmed.metrics.measures import measure_label
from segmed.metrics.quality import ShapeRange
from segmed.metrics.training_norms import ranges_of
from segmed.outcomes import classify
from segmed.package import ModelPackage
from segmed.package.training_cases import unseen_cases
from segmed.pictures.scores import scores_picture
from segmed.pictures.shown import as_png
from segmed.plan.agreement import channel_order, ordered_images, require_known_labels
from segmed.quality.cases import quality_case
from segmed.quality.fitting import QualityCase
from segmed.structures import LabelClass

Progress = Callable[[int, int], None]

Scored = tuple[Path, list[CaseScore]]
"""File of a segmentation, and its scores."""

FolderScored = tuple[list[CaseScore], tuple[StrayValue, ...]]
"""Scores of a label map, and values that are not labels."""


@dataclass(frozen=True, repr=False)
class Evaluated:
    """Segmentations and scores of labelled cases.

    Attributes:
        table: One row a case and label, as from `segmed.metrics.scores_table`.
        predictions: The written segmentation of each case, by case id.
        seconds_per_case: Mean wall time of a segmentation, reading and writing excluded, in s.
        model: Name of the model.
        quality_cases: Features of each case beside its scores, by case id, for `fit_quality`;
            empty unless they were requested.
    """

    table: pd.DataFrame
    predictions: dict[str, Path]
    seconds_per_case: float
    model: str = "model"
    quality_cases: dict[str, QualityCase] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Number of cases and mean Dice of each structure in one line."""
        return f"Evaluated({self.model}: {dice_line(self.table)})"

    def plot(self) -> Image:
        """Picture of Dice and HD95 of every case, by structure."""
        return scores_picture({self.model: self.table})

    def _repr_png_(self) -> bytes:
        """The same picture as PNG, for notebooks."""
        return as_png(self.plot())


def dice_line(table: pd.DataFrame) -> str:
    """Number of cases, mean Dice of each structure and the counts behind the means, in one line."""
    parts = []
    for name, rows in table.groupby("label", sort=False):
        scored = rows[~rows["both_empty"].astype(bool)]
        missed = int(rows["missed"].sum())
        mean = f"{scored['dice'].mean():.3f}" if len(scored) else "not scored"
        parts.append(f"{name} {mean}" + (f" ({missed} missed)" if missed else ""))
    more = [f"{len(parts) - MOST_SHOWN} more"] * (len(parts) > MOST_SHOWN)
    cases = int(table["case"].nunique())
    counted = "1 case" if cases == 1 else f"{cases} cases"
    return f"{counted}, mean Dice {', '.join(parts[:MOST_SHOWN] + more)}"


@checked("manifest")
def evaluate(
    model: ModelPackage | Predictor | Path | str,
    manifest: Manifest | Path | str,
    *,
    fold: int | None = None,
    cases: Sequence[Case | str] | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluated:
    """Score a model on cases that it was not trained on.

    Args:
        model: A package or its path (see `Predictor.load`), or a predictor.
        manifest: The image set, or the path of its manifest.
        fold: Fold whose cases are scored; the one that the training held out, if left out.
        cases: Cases or ids to score instead, such as `manifest.test`.
        out: Folder for the segmentations; none are kept if left out.
        device: Device of a package: `auto`, `cpu` or `cuda`.
        progress: Called with cases done and cases in all.

    Returns:
        Scores of each case and structure, in a table.

    Raises:
        UsageError: A case was trained on; or neither fold nor cases are given, and the package
            held out none of this manifest.
        ManifestError: A case has no label or cannot be read; the message names it.
    """
    manifest = manifest_of(manifest)
    if isinstance(model, Path | str):
        predictor = Predictor.load(model, device=device)
    else:
        predictor = model if isinstance(model, Predictor) else Predictor(model, device=device)
    chosen = unseen_cases(predictor.packages, manifest, fold=fold, cases=cases)
    if out is not None:
        return score_cases(predictor, manifest, chosen, out_dir=Path(out), progress=progress)
    with scratch_space() as scratch:
        found = score_cases(predictor, manifest, chosen, out_dir=scratch, progress=progress)
    return replace(found, predictions={})


def score_cases(
    predictor: Predictor,
    manifest: Manifest,
    cases: Sequence[Case],
    *,
    out_dir: Path,
    progress: Progress | None = None,
    with_features: bool = False,
) -> Evaluated:
    """Segment labelled cases on their own grids, write the results and score them.

    Args:
        predictor: Loaded model.
        manifest: The image set that the cases are from.
        cases: Cases with labels, none of which the model was trained on.
        out_dir: Folder for one segmentation a case.
        progress: Called with cases done and cases in all.
        with_features: Gather features of each segmentation, to predict the quality of others.

    Returns:
        Scores, files and time.

    Raises:
        UsageError: There is no case, or the manifest has other channels or labels than the model.
        ManifestError: A case has no label or cannot be read; the message names it.
    """
    if not cases:
        raise UsageError("no case to score: choose a fold with held-out cases")
    scores = CaseScores(manifest.encoding)
    if with_features:
        predictor.gather_features()
    ranges = ranges_of(predictor.packages[0].provenance)
    sink = ScoringSink(manifest, out_dir, scores, cases=cases, ranges=ranges)
    predictions: dict[str, Path] = {}
    seconds = 0.0
    for case, end in segmented_cases(predictor, manifest, cases, sink, progress=progress):
        if isinstance(end.error, SegmedError):
            raise ManifestError(f"case {case.id}: {classify(end.error).reason}") from end.error
        if end.error is not None:
            raise end.error
        assert end.written is not None  # without an error there is one
        predictions[case.id], rows = end.written
        scores.add(rows)
        seconds += end.seconds["prepare"] + end.seconds["predict"]
    name = " + ".join(package.architecture for package in predictor.packages)
    return Evaluated(scores.table(), predictions, seconds / len(cases), name, sink.quality_cases)


def segmented_cases(
    predictor: Predictor,
    manifest: Manifest,
    cases: Sequence[Case],
    sink: ScoringSink,
    *,
    progress: Progress | None = None,
) -> Iterator[tuple[Case, PipelineEnd[Case, Scored]]]:
    """Segment labelled cases one after the other: the time of a segmentation is a result, too.

    Args:
        predictor: Loaded model.
        manifest: The image set that the cases are from.
        cases: Cases with labels.
        sink: Writes and scores the segmentations.
        progress: Called with cases done and cases in all, after the caller took each.

    Yields:
        Each case and its end.

    Raises:
        UsageError: The manifest has other channels or labels than the model.
        ManifestError: A case has no label.
    """
    for case in cases:
        if manifest.label_path(case) is None:
            raise ManifestError(f"case {case.id} has no label to score against")
    plan = predictor.packages[0].plan
    require_known_labels(plan, manifest)
    order = channel_order([channel.name for channel in plan.channels], manifest)
    pipeline = Pipeline(predictor, sink)
    for done, case in enumerate(cases, start=1):
        files = CaseFiles(case.id, ordered_images(manifest, case, order))
        yield case, pipeline.segment(PipelineItem(files, case))
        if progress is not None:
            progress(done, len(cases))


class ScoringSink:
    """Results in a folder, each scored against the label of its case.

    Args:
        manifest: The image set of the cases.
        out_dir: Folder for one segmentation a case.
        scores: What a result is scored by.
        cases: The cases in the order in which they are scored.
        ranges: What the structures looked like in training, for quality flags.

    Attributes:
        quality_cases: Results with features, by case id.
    """

    format: OutputFormat = "nifti"
    keeps_image = False

    def __init__(
        self,
        manifest: Manifest,
        out_dir: Path,
        scores: CaseScores,
        *,
        cases: Sequence[Case],
        ranges: Sequence[ShapeRange] = (),
    ) -> None:
        self._ranges = ranges
        self._manifest = manifest
        self._reader = CaseReader(manifest, cases, has_images=False)
        self._out_dir = out_dir
        self._scores = scores
        self._references: dict[str, MetaTensor] = {}
        self.quality_cases: dict[str, QualityCase] = {}

    def output_for(self, origin: Case, image: MetaTensor) -> Path:
        """File of the result, named after the case; its label is read before the network runs."""
        assert origin.label is not None  # checked for all cases at first
        reference = self._reader.label(origin.label, like=image)
        self._references[origin.id] = reference
        return self._out_dir / f"{origin.id}{suffix_for(self.format, image)}"

    def write(self, origin: Case, output: Path, image: MetaTensor, found: Segmentation) -> Scored:
        """Write and score one result."""
        labels = self._manifest.labels
        write_result(output, found, self.format, like=image, labels=labels)
        reference = self._references.pop(origin.id)
        spacing_mm = grid_of(reference).spacing_mm
        rows = self._scores.measure(
            found.label[0], reference[0], spacing_mm=spacing_mm, case_id=origin.id
        )
        if found.features is not None:
            flags = measure_label(found.label, labels, ranges=self._ranges)["flags"]
            case = quality_case(origin.group, found.features, rows, is_flagged=bool(flags))
            if case is not None:
                self.quality_cases[origin.id] = case
        return output, rows


@dataclass(frozen=True, repr=False)
class FolderScores:
    """Scores of a folder of predictions.

    Attributes:
        table: One row a case and label.
        strays: Values in predictions and references that are not labels, and enter no score.
    """

    table: pd.DataFrame
    strays: tuple[StrayValue, ...]

    def __repr__(self) -> str:
        """Number of cases and mean Dice of each structure in one line."""
        return f"FolderScores({dice_line(self.table)})"

    def plot(self) -> Image:
        """Picture of Dice and HD95 of every case, by structure."""
        return scores_picture({"predictions": self.table})

    def _repr_png_(self) -> bytes:
        """The same picture as PNG, for notebooks."""
        return as_png(self.plot())


def compare_folders(
    predictions: Path,
    references: Path,
    *,
    labels: Sequence[LabelClass],
    manifest: Manifest | None = None,
    tolerance_mm: float = 1.0,
    workers: int = 2,
    progress: Progress | None = None,
) -> FolderScores:
    """Score the label maps of one folder against those of the same name in another.

    Args:
        predictions: Folder of label maps of any origin, or output folder of an archive run.
        references: Folder of reference label maps; each must have a prediction.
        labels: Structures to score. Segments of DICOM segmentations are matched to them by name
            and code.
        manifest: The set of the references, if it merges, drops or renames what they contain.
        tolerance_mm: Tolerance of NSD and boundary IoU, in mm.
        workers: Threads.
        progress: Called with cases done and cases in all.

    Returns:
        The scores, and the values that are not labels.

    Raises:
        UsageError: A folder is missing or empty, or a reference has no prediction.
        ImageError: A file cannot be read correctly, or is on another grid; the case is named.
    """
    wanted = label_files(references)
    found = prediction_files(predictions, wanted)
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UsageError(
            f"{len(missing)} of {len(wanted)} references have no prediction in {predictions}: "
            f"{shown}; a missing case is not left out of a mean, so predict it first"
        )

    ignore_value = None if manifest is None else manifest.ignore_value
    scores = CaseScores(LabelEncoding(tuple(labels), ignore_value), tolerance_mm=tolerance_mm)

    def begin(run: Sequence[str]) -> Callable[[str], FolderScored]:
        pairs = [(found[case_id], wanted[case_id]) for case_id in run]
        return partial(score, PairsAhead(pairs))

    def score(ahead: PairsAhead, case_id: str) -> FolderScored:
        files = found[case_id], wanted[case_id]
        pair = read_pair(case_id, *files, labels, manifest=manifest, ahead=ahead)
        spacing_mm = grid_of(pair.reference).spacing_mm
        rows = scores.measure(
            pair.prediction[0], pair.reference[0], spacing_mm=spacing_mm, case_id=case_id
        )
        return rows, pair.strays

    workers = max(1, workers)
    runs = runs_of(sorted(wanted), lambda one: [found[one], wanted[one]], workers=workers)
    strays: list[StrayValue] = []
    for done, (rows, odd) in enumerate(over_runs(begin, runs, workers=workers), start=1):
        scores.add(rows)
        strays += odd
        if progress is not None:
            progress(done, len(wanted))
    return FolderScores(scores.table(), tuple(strays))
