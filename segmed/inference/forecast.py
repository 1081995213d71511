"""Forecast of time and memory of a prediction: images are read, none is segmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segmed.formats import OutputFormat
from segmed.inference.files import bad_outcome
from segmed.inference.inputs import Input, checked_inputs, expected_by
from segmed.inference.predictor import Predictor
from segmed.inference.writing import require_writable
from segmed.io import grid_of, source_of
from segmed.io.channel_files import CaseFiles
from segmed.io.read import notes_of, read_case
from segmed.outcomes import BadStatus, classify
from segmed.transforms.chain import require_channels


@dataclass(frozen=True)
class Forecast:
    """Forecast of one input.

    Attributes:
        input: The input; of several channels the first.
        status: `ready`, or how it would end.
        reason: Why it would be refused or fail; a code where there is one, then a sentence.
        form: Form of its source, such as `nifti`.
        shape: Voxels along each axis as stored.
        spacing_mm: Voxel edge along each axis, in mm.
        memory_gb: Peak memory of the process while it is segmented, in GB of 2^30 bytes.
        memory: The same with its parts, in words; on a GPU with the memory taken there.
        notes: Remarks on the input, as for an outcome.
    """

    input: Path
    status: BadStatus | Literal["ready"]
    reason: str | None = None
    form: str = ""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    memory_gb: float | None = None
    memory: str = ""
    notes: tuple[str, ...] = ()


def foresee_files(
    predictor: Predictor,
    inputs: Sequence[Input],
    format: OutputFormat = "nifti",
    *,
    trusted: bool = False,
) -> Iterator[Forecast]:
    """Forecast `predict_files` with the same arguments; nothing is written.

    Yields:
        One forecast an input, in their order. Its memory is that of one image; without a bound on
        memory, `predict_files` keeps up to three prepared images at once.

    Raises:
        UsageError: The format is unknown, or there is no input.
    """
    items = checked_inputs(inputs, format, expected_by(predictor.packages[0]))
    return (_forecast(predictor, item, format, trusted=trusted) for item in items)


def _forecast(
    predictor: Predictor, item: CaseFiles, format: OutputFormat, *, trusted: bool
) -> Forecast:
    path = item.files[0]
    try:
        image = read_case(item, num_channels=predictor.plan.in_channels, trusted=trusted)
        predictor.require_fitting(image)
        require_channels(image, predictor.plan)
        require_writable(format, image)
        grid = grid_of(image)
        source = source_of(image)
        keeps_probs = format == "probabilities"
        estimate = predictor.estimate_memory(grid, keeps_image=False, keeps_probs=keeps_probs)
        predictor.require_memory(grid, keeps_image=False, keeps_probs=keeps_probs)
        on_gpu = predictor.forecast_device(grid)
    except Exception as error:  # noqa: BLE001 - one bad image must not hide what the others take
        bad = bad_outcome(path, error)
        return Forecast(path, classify(error).status, bad.reason)
    return Forecast(
        input=path,
        status="ready",
        form="" if source is None else source.format,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        memory_gb=round(estimate.total_gb, 3),
        memory=str(estimate) if on_gpu is None else f"{estimate}; {on_gpu}",
        notes=notes_of(image),
    )
