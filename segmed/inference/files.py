"""Many files through one predictor: reading, the network and writing overlap; bad files are listed.

One thread reads and prepares ahead, the caller's thread runs the network, one thread writes. The
queues between them are bounded, and outcomes come in the order of the inputs.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from segmed.errors import ImageError, SegmedError, UsageError
from segmed.inference.inputs import Input, checked_inputs
from segmed.inference.predictor import Predictor, Segmentation
from segmed.inference.writing import OutputFormat, suffix_for, write_result
from segmed.io import grid_of, read_image, source_of
from segmed.io.channel_files import CaseFiles
from segmed.io.read import as_channels
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
    """

    input: Path
    status: Literal["done", "refused", "failed"]
    output: Path | None = None
    reason: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class _Job:
    """An image on its way through; its voxels are gone once it has been prepared."""

    input: Path
    case: str
    like: MetaTensor
    prepared: Prepared


def predict_files(
    predictor: Predictor,
    inputs: Sequence[Input],
    out_dir: Path | str,
    format: OutputFormat = "nifti",
    *,
    read: Callable[[Path], MetaTensor] | None = None,
) -> Iterator[Outcome]:
    """Segment many images; a bad one is reported and the rest goes on.

    Args:
        predictor: Loaded once, used for all.
        inputs: Files, folders (searched, see `inputs.find_cases`), or tuples with a file a channel.
        out_dir: Folder of the results; made if missing. A result takes its case's name; that of a
            DICOM series is a hash of its UID, since folders are often named after patients.
        format: `nifti` (PNG for raster images), `dicom-seg`, `rtstruct` or `probabilities`.
        read: Reads one file or series, `read_image` if not given;
            `segmed.io.careful.read_image_carefully` is for files that nobody vouches for.

    Yields:
        One outcome an input, in their order.

    Raises:
        UsageError: The format is unknown, or there is no input.
    """
    return _run(
        predictor,
        checked_inputs(inputs, format, predictor.plan.in_channels),
        Path(out_dir),
        format,
        read or partial(read_image, num_channels=predictor.plan.in_channels),
    )


def _run(
    predictor: Predictor,
    items: list[CaseFiles],
    out_dir: Path,
    output_format: OutputFormat,
    read: Callable[[Path], MetaTensor],
) -> Iterator[Outcome]:
    out_dir.mkdir(parents=True, exist_ok=True)
    names = _Names(out_dir, output_format)
    keep_probs = output_format == "probabilities"
    writes: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(1, "write") as writer:
        for job in _jobs(predictor, items, read, keep_probs):
            result = _segment(predictor, job, keep_probs=keep_probs)
            writes.append(writer.submit(_write, predictor, job, result, names))
            while len(writes) > (WRITE_BEHIND if predictor.memory_gb is None else 0):
                yield writes.popleft().result()
        while writes:
            yield writes.popleft().result()


def _jobs(
    predictor: Predictor,
    items: list[CaseFiles],
    read: Callable[[Path], MetaTensor],
    keep_probs: bool,
) -> Iterator[_Job | Outcome]:
    """Prepared images in order; read ahead by a thread, unless memory is bounded."""
    if predictor.memory_gb is not None:
        yield from (_read(predictor, item, read, keep_probs) for item in items)
        return
    waiting = iter(items)
    reads: deque[Future[_Job | Outcome]] = deque()
    with ThreadPoolExecutor(1, "read") as reader:
        try:
            for item in islice(waiting, READ_AHEAD):
                reads.append(reader.submit(_read, predictor, item, read, keep_probs))
            while reads:
                job = reads.popleft().result()
                for item in islice(waiting, 1):
                    reads.append(reader.submit(_read, predictor, item, read, keep_probs))
                yield job
        finally:
            for queued in reads:
                queued.cancel()


def _read(
    predictor: Predictor, item: CaseFiles, read: Callable[[Path], MetaTensor], keep_probs: bool
) -> _Job | Outcome:
    first = item.files[0]
    try:
        image = read_input(item, read)
        predictor.require_memory(grid_of(image), keeps_image=False, keeps_probs=keep_probs)
        prepared = prepare(image, predictor.plan)
        return _Job(first, item.case, _without_voxels(image), prepared)
    except Exception as error:  # noqa: BLE001 - one bad image must not stop the rest
        return bad_outcome(first, error)


def read_input(item: CaseFiles, read: Callable[[Path], MetaTensor]) -> MetaTensor:
    """The image of a case, its channels stacked.

    Args:
        item: The case.
        read: Reads one file or series.

    Raises:
        ImageError: It cannot be read correctly, or its files are not those of one case.
    """
    item.require_sound()
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
    predictor: Predictor, job: _Job | Outcome, result: Segmentation | Outcome, names: _Names
) -> Outcome:
    if isinstance(job, Outcome):
        return job
    if isinstance(result, Outcome):
        return result
    try:
        path = names.path_for(job.input, job.case, job.like)
        write_result(path, result, names.format, like=job.like, packages=predictor.packages)
    except Exception as error:  # noqa: BLE001 - one bad image must not stop the rest
        return bad_outcome(job.input, error)
    return Outcome(job.input, "done", path, None, result.seconds)


def bad_outcome(path: Path, error: Exception) -> Outcome:
    """The outcome of an input that did not come through; known reasons count as refusals.

    Args:
        path: The input.
        error: What was raised on its way.
    """
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImageError):
        return Outcome(path, "refused", None, f"{error.reason}: {message}")
    if isinstance(error, SegmedError):
        return Outcome(path, "refused", None, message)
    logger.warning("an input failed by %s", type(error).__name__)
    return Outcome(path, "failed", None, f"{type(error).__name__}: {message}")


def _without_voxels(image: MetaTensor) -> MetaTensor:
    """Shape, affine and source of an image, in a few bytes: writers need no voxels."""
    hollow = image.as_tensor().new_zeros(1).expand(image.shape)
    return MetaTensor(hollow, affine=image.affine, meta={"source": image.meta.get("source")})


class _Names:
    """Names of results: an input's own, or a hash for DICOM; never one name for two inputs."""

    def __init__(self, out_dir: Path, output_format: OutputFormat) -> None:
        self.out_dir = out_dir
        self.format = output_format
        self.used: set[str] = set()

    def path_for(self, path: Path, case: str, like: MetaTensor) -> Path:
        """Where an input's result goes.

        Raises:
            UsageError: The result would replace the input.
        """
        source = source_of(like)
        stem = case
        if source is not None and source.series_uid:
            stem = "series-" + hashlib.sha256(source.series_uid.encode()).hexdigest()[:16]
        name, number = stem, 1
        while name in self.used:
            number += 1
            name = f"{stem}-{number}"
        self.used.add(name)
        result = self.out_dir / (name + suffix_for(self.format, like))
        if result.exists() and path.exists() and result.samefile(path):
            raise UsageError(f"the result would replace its input {path.name}: give another folder")
        return result
