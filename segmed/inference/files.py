"""Many files through one predictor: reading, the network and writing overlap; bad files are listed.

One thread reads and prepares ahead, the caller's thread runs the network, one thread writes. The
queues between them are bounded, and outcomes come in the order of the inputs.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from segmed.errors import ImageError, SegmedError, is_out_of_memory
from segmed.inference.inputs import Input, Read, checked_inputs, expected_by
from segmed.inference.predictor import Predictor, Segmentation
from segmed.inference.result_names import ResultNames
from segmed.inference.vocabulary import OutputFormat
from segmed.inference.writing import write_result
from segmed.io import grid_of, read_image
from segmed.io.channel_files import CaseFiles
from segmed.io.output_names import NameKind, check_names, shown
from segmed.io.read import as_channels, notes_of
from segmed.io.results import results_among
from segmed.metatensor import MetaTensor
from segmed.preprocessing import Prepared, prepare

logger = logging.getLogger(__name__)

READ_AHEAD = 2
"""Images that are read and prepared before the network asks for them."""

WRITE_BEHIND = 2
"""Results that may wait to be written."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        input: The input; of several channels the first.
        status: `done`; `refused`: it cannot be segmented correctly, for a known reason; `failed`:
            something broke.
        output: The file written, if any.
        reason: Why it was refused or failed; a code where there is one, then a sentence.
        seconds: Wall time of its segmentation, reading and writing apart.
        notes: Remarks on the input, such as lossy compression or images that are not there.
    """

    input: Path
    status: Literal["done", "refused", "failed"]
    output: Path | None = None
    reason: str | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Job:
    """An image on its way through; its voxels are gone once it has been prepared."""

    input: Path
    output: Path
    like: MetaTensor
    prepared: Prepared


def predict_files(
    predictor: Predictor,
    inputs: Sequence[Input],
    out_dir: Path | str,
    format: OutputFormat = "nifti",
    *,
    read: Read | None = None,
    roots: Sequence[Path] = (),
    names: NameKind | None = None,
) -> Iterator[Outcome]:
    """Segment many images; a bad one is reported and the rest goes on.

    Args:
        predictor: Loaded once, used for all.
        inputs: Files, folders (searched, see `inputs.find_cases`), or tuples with a file a channel.
        out_dir: Folder of the results; made if missing. What exists there is only replaced if it
            is an earlier result of the same input.
        format: `nifti` (PNG for raster images), `dicom-seg`, `rtstruct` or `probabilities`.
        read: Reads one file or series, `read_image` if not given;
            `segmed.io.sandboxed.read_image_sandboxed` is for files that nobody vouches for.
        roots: Folders, besides those among the inputs, that results mirror.
        names: `source`: results keep relative path and name of their inputs; `hash`: they are named
            by a hash of the content or UID. None: files by source, DICOM series by hash, since
            their folders are often named after patients.

    Yields:
        One outcome an input, in their order.

    Raises:
        UsageError: The format or the kind of names is unknown, or there is no input.
    """
    check_names(names)
    items = checked_inputs(inputs, format, expected_by(predictor.packages[0]))
    given = [Path(item) for item in inputs if isinstance(item, str | Path)]
    folders = [*roots, *(path for path in given if path.is_dir())]
    result_names = ResultNames(Path(out_dir), format, items, roots=folders, names=names)
    reader = read or partial(read_image, num_channels=predictor.plan.in_channels)
    return _run(predictor, items, result_names, reader)


def _run(
    predictor: Predictor,
    items: list[CaseFiles],
    names: ResultNames,
    read: Read,
) -> Iterator[Outcome]:
    names.out_dir.mkdir(parents=True, exist_ok=True)
    keep_probs = names.format == "probabilities"
    writes: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(1, "write") as writer:
        for job in _jobs(predictor, items, read, names):
            result = _segment(predictor, job, keep_probs=keep_probs)
            writes.append(writer.submit(_write, predictor, job, result, names.format))
            while len(writes) > (WRITE_BEHIND if predictor.memory_gb is None else 0):
                yield writes.popleft().result()
        while writes:
            yield writes.popleft().result()


def _jobs(
    predictor: Predictor,
    items: list[CaseFiles],
    read: Read,
    names: ResultNames,
) -> Iterator[_Job | Outcome]:
    """Prepared images in order; read ahead by a thread, unless memory is bounded."""
    if predictor.memory_gb is not None:
        yield from (_read(predictor, item, read, names) for item in items)
        return
    waiting = iter(items)
    reads: deque[Future[_Job | Outcome]] = deque()
    with ThreadPoolExecutor(1, "read") as reader:
        try:
            for item in islice(waiting, READ_AHEAD):
                reads.append(reader.submit(_read, predictor, item, read, names))
            while reads:
                job = reads.popleft().result()
                for item in islice(waiting, 1):
                    reads.append(reader.submit(_read, predictor, item, read, names))
                yield job
        finally:
            for queued in reads:
                queued.cancel()


def _read(predictor: Predictor, item: CaseFiles, read: Read, names: ResultNames) -> _Job | Outcome:
    first = item.files[0]
    keep_probs = names.format == "probabilities"
    try:
        image = read_input(item, read)
        predictor.require_fitting(image)
        predictor.require_memory(grid_of(image), keeps_image=False, keeps_probs=keep_probs)
        output = names.path_for(item, image)
        prepared = prepare(image, predictor.plan)
        return _Job(first, output, _without_voxels(image), prepared)
    except Exception as error:  # noqa: BLE001 - one bad image must not stop the rest
        return bad_outcome(first, error)


def read_input(item: CaseFiles, read: Read) -> MetaTensor:
    """The image of a case, its channels stacked.

    Args:
        item: The case.
        read: Reads one file or series.

    Raises:
        ImageError: It cannot be read correctly, its files are not those of one case, or `derived`:
            one of them is a result.
    """
    item.require_sound()
    for path, why in results_among(item.files).items():
        message = f"{shown(path.name)} is {why}, no image to segment"
        raise ImageError(message, reason="derived", paths=[path])
    if item.series:
        names = [f"channel {number}" for number in range(1, len(item.series) + 1)]
        return as_channels([read(audit) for audit in item.series], names)
    return as_channels([read(path) for path in item.files], item.files)


def _segment(
    predictor: Predictor, job: _Job | Outcome, *, keep_probs: bool
) -> Segmentation | Outcome:
    if isinstance(job, Outcome):
        return job
    try:
        return predictor.segment(job.prepared, probabilities=keep_probs)
    except Exception as error:  # noqa: BLE001 - one bad image must not stop the rest
        return bad_outcome(job.input, error)


def _write(
    predictor: Predictor,
    job: _Job | Outcome,
    result: Segmentation | Outcome,
    output_format: OutputFormat,
) -> Outcome:
    if isinstance(job, Outcome):
        return job
    if isinstance(result, Outcome):
        return result
    try:
        like, packages = job.like, predictor.packages
        write_result(job.output, result, output_format, like=like, packages=packages)
    except Exception as error:  # noqa: BLE001 - one bad image must not stop the rest
        return bad_outcome(job.input, error)
    return Outcome(job.input, "done", job.output, None, result.seconds, notes_of(job.like))


def bad_outcome(path: Path, error: Exception) -> Outcome:
    """The outcome of an input that did not come through; known reasons count as refusals.

    Args:
        path: The input.
        error: What was raised on its way.
    """
    message = shown(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, ImageError):
        return Outcome(path, "refused", None, f"{error.reason}: {message}")
    if isinstance(error, SegmedError):
        return Outcome(path, "refused", None, message)
    if is_out_of_memory(error):
        why = "more memory was needed than there is; free some, or give --memory-gb"
        return Outcome(path, "failed", None, f"out_of_memory: {why}")
    logger.warning("an input failed by %s", type(error).__name__)
    return Outcome(path, "failed", None, f"{type(error).__name__}: {message}")


def _without_voxels(image: MetaTensor) -> MetaTensor:
    """Shape, affine and source of an image, in a few bytes: writers need no voxels."""
    hollow = image.as_tensor().new_zeros(1).expand(image.shape)
    return MetaTensor(hollow, affine=image.affine, meta={"source": image.meta.get("source")})
