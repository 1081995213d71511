"""Many files through the pipeline: results in a folder, bad files listed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.formats import BINARY_SEG, OutputFormat, SegForm, require_seg_form
from segmed.inference.inputs import Input, checked_inputs, expected_by
from segmed.inference.pipeline import Pipeline, PipelineEnd, PipelineItem, in_order
from segmed.inference.predictor import Predictor
from segmed.inference.result_names import ResultNames
from segmed.inference.segmentation import Segmentation
from segmed.inference.writing import identity_of, write_result
from segmed.io.channel_files import CaseFiles
from segmed.io.output_names import NameKind, check_names, shown
from segmed.io.read import Read, notes_of
from segmed.io.scratch import remove_scratch_leftovers
from segmed.metatensor import MetaTensor
from segmed.outcomes import OUT_OF_MEMORY, Status, classify

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Outcome of one input.

    Attributes:
        input: The input; of several channels the first.
        status: See `segmed.outcomes`.
        output: The file written, if any.
        reason: Why it was refused or failed; a code, then a sentence.
        seconds: Wall time of its segmentation, reading and writing apart.
        notes: Remarks on the input, such as lossy compression or images that are not there.
        quality: Predicted quality as JSON values (`CaseQuality.record`), if the model has it.
    """

    input: Path
    status: Status
    output: Path | None = None
    reason: str | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    quality: dict[str, Any] | None = None


def predict_files(
    predictor: Predictor,
    inputs: Sequence[Input],
    out_dir: Path | str,
    format: OutputFormat | SegForm = "nifti",
    *,
    trusted: bool = False,
    read: Read | None = None,
    roots: Sequence[Path] = (),
    names: NameKind | None = None,
) -> Iterator[Outcome]:
    """Segment many images; a bad one is reported and the others continue.

    Args:
        predictor: Loaded once, used for all.
        inputs: Files, folders (searched, see `inputs.find_cases`), or tuples with a file a channel.
        out_dir: Folder of the results; made if missing. What exists there is only replaced if it
            is an earlier result of the same input.
        format: `nifti` (PNG for raster images), `seg-nrrd`, `dicom-seg`, `rtstruct` or
            `probabilities`; or a `SegForm`: `dicom-seg` in that form.
        trusted: Decode everything in this process, also what may crash it; see `read_image`.
        read: Reader of one file or series instead of `read_image`.
        roots: Folders, besides those among the inputs, that results mirror.
        names: `source`: results keep relative path and name of their inputs; `hash`: they are named
            by a hash of the content or UID. None: files by source, DICOM series by hash, since
            their folders are often named after patients.

    Returns:
        One outcome an input, in their order.

    Raises:
        UsageError: The format, the form or the kind of names is unknown or does not fit, or there
            is no input.
    """
    check_names(names)
    remove_scratch_leftovers()
    seg = format if isinstance(format, SegForm) else BINARY_SEG
    name: OutputFormat = "dicom-seg" if isinstance(format, SegForm) else format
    require_seg_form(seg, name, predictor.plan.labels)
    cases = checked_inputs(inputs, name, expected_by(predictor.packages[0]))
    given = [Path(item) for item in inputs if isinstance(item, str | Path)]
    folders = [*roots, *(path for path in given if path.is_dir())]
    sink = _FolderSink(
        predictor, ResultNames(Path(out_dir), name, cases, roots=folders, names=names), seg
    )
    pipeline = Pipeline(predictor, sink, trusted=trusted, read=read, seg=seg)
    return _outcomes(pipeline, cases, Path(out_dir))


def _outcomes(
    pipeline: Pipeline[CaseFiles, Outcome], cases: Sequence[CaseFiles], out_dir: Path
) -> Iterator[Outcome]:
    out_dir.mkdir(parents=True, exist_ok=True)
    for end in in_order(pipeline.run(PipelineItem(case, case) for case in cases)):
        yield _outcome_of(end)


def _outcome_of(end: PipelineEnd[CaseFiles, Outcome]) -> Outcome:
    if end.error is not None:
        return bad_outcome(end.origin.files[0], end.error)
    assert end.written is not None  # without an error there is one
    return end.written


class _FolderSink:
    """Results in a folder, named after their inputs.

    Args:
        predictor: The model; its names and hashes go into DICOM objects.
        names: Names of the results.
        seg: Form of DICOM segmentations.
    """

    keeps_image = False

    def __init__(self, predictor: Predictor, names: ResultNames, seg: SegForm) -> None:
        self.format = names.format
        self._names, self._seg = names, seg
        self._labels = predictor.plan.labels
        self._packages = predictor.packages
        self._model_name, self._model_version = identity_of(predictor.packages)

    def output_for(self, origin: CaseFiles, image: MetaTensor) -> Path:
        """File of the result, recorded as the result of its input."""
        return self._names.path_for(origin, image)

    def write(
        self, origin: CaseFiles, output: Path, image: MetaTensor, found: Segmentation
    ) -> Outcome:
        """Write one result."""
        write_result(
            output,
            found,
            self.format,
            like=image,
            labels=self._labels,
            model_name=self._model_name,
            model_version=self._model_version,
            seg=self._seg,
        )
        if self._seg.reports:
            from segmed.inference.reporting import report_beside  # noqa: PLC0415 - loads SciPy

            report_beside(output, found, self._seg.reports, image=image, packages=self._packages)
        quality = None if found.quality is None else found.quality.record()
        notes = notes_of(image)
        return Outcome(origin.files[0], "done", output, None, found.seconds, notes, quality)


def bad_outcome(path: Path, error: Exception) -> Outcome:
    """Outcome of an input whose segmentation ended with an error, by `segmed.outcomes.classify`.

    Args:
        path: The input.
        error: What was raised.
    """
    why = classify(error)
    if why.code == "unexpected":
        logger.warning("an input failed by %s", type(error).__name__)
    hint = "; free some, or set --memory-gb" if why.code == OUT_OF_MEMORY else ""
    return Outcome(path, why.status, None, shown(why.reason) + hint)
