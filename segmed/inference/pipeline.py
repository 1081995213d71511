"""The one pipeline from the files of an image to its written segmentation, in stages that overlap.

Stages: read and check, prepare, predict with the inverse, write. One thread reads and prepares
ahead, the caller's thread runs the network, one thread writes; what waits between them is bounded.
Small images go through the network side by side, where the predictor says so, in threads of its.
`segmed predict`, the archive, evaluation and the served model all run this pipeline, each with a
`Sink` that says where results go.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from segmed.formats import BINARY_SEG, OutputFormat, SegForm
from segmed.geometry import Grid
from segmed.inference.label_map import Keeps
from segmed.inference.segmentation import Segmentation
from segmed.inference.stage_threads import StageThreads
from segmed.inference.writing import require_writable
from segmed.io import grid_of
from segmed.io.channel_files import CaseFiles
from segmed.io.read import Read, read_case
from segmed.metatensor import MetaTensor

READ_AHEAD = 2
"""Images that are read and prepared before the network is free for them."""

WRITE_BEHIND = 2
"""Results that may wait to be written."""

Origin = TypeVar("Origin")
Origin_contra = TypeVar("Origin_contra", contravariant=True)
Written = TypeVar("Written")
Written_co = TypeVar("Written_co", covariant=True)


@dataclass(frozen=True)
class PipelineItem(Generic[Origin]):
    """One image to segment.

    Attributes:
        case: Its files.
        origin: The caller's own record of it, handed to the sink and given back.
    """

    case: CaseFiles
    origin: Origin


@dataclass(frozen=True)
class PipelineEnd(Generic[Origin, Written]):
    """Result or failure of one image.

    Attributes:
        origin: The caller's record of the image.
        written: What the sink returned; None after a failure.
        error: What was raised on its way, or None.
        seconds: Wall time of each stage that it came through, by `read`, `prepare`, `predict` and
            `write`; waiting excluded.
    """

    origin: Origin
    written: Written | None
    error: Exception | None
    seconds: dict[str, float]


class Sink(Protocol[Origin_contra, Written_co]):
    """Destination of the results of a pipeline.

    Attributes:
        format: Output format of the results.
        keeps_image: The sink needs the voxels of the image when it writes.
    """

    @property
    def format(self) -> OutputFormat: ...  # noqa: D102 - see above

    @property
    def keeps_image(self) -> bool: ...  # noqa: D102 - see above

    def output_for(self, origin: Origin_contra, image: MetaTensor) -> Path:
        """File of the result, before the network runs; an error here spares the network."""
        ...

    def write(
        self, origin: Origin_contra, output: Path, image: MetaTensor, found: Segmentation
    ) -> Written_co:
        """Write one result, whole or not at all.

        Args:
            origin: The caller's record of the image.
            output: What `output_for` returned.
            image: The image; without its voxels unless the sink keeps them.
            found: Its segmentation; with probabilities if the format is `probabilities`.
        """
        ...


class ImageModel(Protocol):
    """The parts of a `Predictor` that a pipeline uses; a joined model has them, too."""

    num_channels: int
    memory_gb: float | None
    streams: int

    def streams_for(self, prepared: Any) -> int: ...  # noqa: D102 - see `Predictor`

    def require_fitting(self, image: MetaTensor) -> None: ...  # noqa: D102 - see `Predictor`

    def require_memory(  # noqa: D102 - see `Predictor`
        self, grid: Grid, *, keeps_image: bool = True, keeps_probs: bool = False
    ) -> None: ...

    def prepare(self, image: MetaTensor) -> Any: ...  # noqa: D102 - see `Predictor`

    def segment(  # noqa: D102 - see `Predictor`
        self, prepared: Any, *, probabilities: Keeps = False
    ) -> Segmentation: ...


@dataclass
class _Passage(Generic[Origin]):
    """An image between two stages; each stage drops what the next ones do not need."""

    origin: Origin
    image: MetaTensor | None = None
    output: Path | None = None
    prepared: Any = None
    found: Segmentation | None = None
    error: Exception | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Measure a stage, and keep what it raises: one bad image must not stop the rest."""
        begun = time.perf_counter()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the boundary between one image and the rest
            self.error = error
        self.seconds[stage] = time.perf_counter() - begun


class Pipeline(Generic[Origin, Written]):
    """Segments images by one predictor and hands the results to one sink.

    Args:
        predictor: The model, loaded.
        sink: Destination of the results.
        trusted: Decode everything in this process, also what may crash it; see `read_image`.
        read: Reader of one file or series instead of `read_image`.
        seg: Form of DICOM segmentations, which may need probabilities.
    """

    def __init__(
        self,
        predictor: ImageModel,
        sink: Sink[Origin, Written],
        *,
        trusted: bool = False,
        read: Read | None = None,
        seg: SegForm = BINARY_SEG,
    ) -> None:
        self._predictor = predictor
        self._sink = sink
        self._trusted = trusted
        self._reader = read
        self._keeps: Keeps = sink.format == "probabilities"
        if sink.format == "dicom-seg" and seg.kind == "fractional":
            self._keeps = "bytes"

    def run(
        self, items: Iterable[PipelineItem[Origin]]
    ) -> Generator[Future[PipelineEnd[Origin, Written]], None, None]:
        """Segment images; stages overlap unless the predictor's memory is bounded.

        Args:
            items: Drawn from one at a time by the reading thread, which may wait for the next.

        Yields:
            A future for each image, in order, once its network has run; it is done when the result
            is written. It never raises: failures are in `PipelineEnd.error`.
        """
        if self._predictor.memory_gb is not None:
            yield from (_done(self.segment(item)) for item in items)
            return
        writes: deque[Future[PipelineEnd[Origin, Written]]] = deque()
        with StageThreads("segmed-write") as writer, StageThreads("segmed-read") as reader:
            for passage in self._predicted(iter(items), reader):
                if passage.error is not None:
                    yield _done(_end(passage))
                    continue
                writes.append(writer.submit(partial(self._write, passage)))
                yield writes[-1]
                while len(writes) > WRITE_BEHIND:
                    writes.popleft().result()

    def _predicted(
        self, items: Iterator[PipelineItem[Origin]], reader: StageThreads
    ) -> Iterator[_Passage[Origin]]:
        """Images in their order, each once its network has run.

        Args:
            items: The images.
            reader: Reads and prepares them.
        """
        reads: deque[Future[_Passage[Origin] | None]] = deque()
        running: deque[Future[_Passage[Origin]]] = deque()
        with StageThreads("segmed-network", self._predictor.streams) as networks:
            try:
                for _ in range(READ_AHEAD):
                    reads.append(reader.submit(partial(self._read_next, items)))
                while (passage := (yield from _next_of(reads, running))) is not None:
                    reads.append(reader.submit(partial(self._read_next, items)))
                    streams = self._streams_for(passage)
                    while len(running) >= streams:
                        yield running.popleft().result()
                    if streams == 1:  # here, where an interrupt ends it at once
                        yield self._predict(passage)
                    else:
                        running.append(networks.submit(partial(self._predict, passage)))
                while running:
                    yield running.popleft().result()
            finally:
                for queued in reads:
                    queued.cancel()

    def _streams_for(self, passage: _Passage[Origin]) -> int:
        """Images like this one that go through the network at once."""
        prepared = passage.prepared
        return 1 if prepared is None else self._predictor.streams_for(prepared)

    def segment(self, item: PipelineItem[Origin]) -> PipelineEnd[Origin, Written]:
        """Segment one image in this thread, stage by stage."""
        passage = self._read(item)
        self._predict(passage)
        return self._write(passage)

    def _read_next(self, items: Iterator[PipelineItem[Origin]]) -> _Passage[Origin] | None:
        item = next(items, None)
        return None if item is None else self._read(item)

    def _read(self, item: PipelineItem[Origin]) -> _Passage[Origin]:
        """Read the image, check it against model, memory and sink, and prepare it."""
        passage = _Passage(item.origin)
        predictor, sink = self._predictor, self._sink
        with passage.timed("read"):
            image = read_case(
                item.case,
                num_channels=predictor.num_channels,
                trusted=self._trusted,
                read=self._reader,
            )
            predictor.require_fitting(image)
            predictor.require_memory(
                grid_of(image), keeps_image=sink.keeps_image, keeps_probs=self._keeps is True
            )
            require_writable(sink.format, image)
            passage.output = sink.output_for(item.origin, image)
            passage.image = image
        if passage.image is not None:
            with passage.timed("prepare"):
                passage.prepared = predictor.prepare(passage.image)
            if not sink.keeps_image:
                passage.image = without_voxels(passage.image)
        return passage

    def _predict(self, passage: _Passage[Origin]) -> _Passage[Origin]:
        """Run network and inverse; the prepared image is dropped."""
        if passage.prepared is not None:
            with passage.timed("predict"):
                passage.found = self._predictor.segment(passage.prepared, probabilities=self._keeps)
            passage.prepared = None
        return passage

    def _write(self, passage: _Passage[Origin]) -> PipelineEnd[Origin, Written]:
        written: Written | None = None
        if passage.error is None:
            # Set by the stages before, which leave an error otherwise.
            assert passage.output is not None
            assert passage.image is not None
            assert passage.found is not None
            with passage.timed("write"):
                written = self._sink.write(
                    passage.origin, passage.output, passage.image, passage.found
                )
        return _end(passage, written)


def _next_of(
    reads: deque[Future[_Passage[Origin] | None]], running: deque[Future[_Passage[Origin]]]
) -> Generator[_Passage[Origin], None, _Passage[Origin] | None]:
    """The next image that was read; those whose network ends before that are yielded meanwhile."""
    while running and not reads[0].done():
        heads: list[Future[Any]] = [reads[0], running[0]]
        wait(heads, return_when=FIRST_COMPLETED)
        if running[0].done():
            yield running.popleft().result()
    return reads.popleft().result()


def _end(passage: _Passage[Origin], written: Written | None = None) -> PipelineEnd[Origin, Written]:
    return PipelineEnd(passage.origin, written, passage.error, passage.seconds)


def _done(
    end: PipelineEnd[Origin, Written],
) -> Future[PipelineEnd[Origin, Written]]:
    future: Future[PipelineEnd[Origin, Written]] = Future()
    future.set_result(end)
    return future


def without_voxels(image: MetaTensor) -> MetaTensor:
    """Shape, affine and source of an image, in a few bytes: writers need no voxels."""
    hollow = image.as_tensor().new_zeros(1).expand(image.shape)
    return MetaTensor(hollow, affine=image.affine, meta={"source": image.meta.get("source")})


def in_order(
    ends: Iterable[Future[PipelineEnd[Origin, Written]]],
) -> Iterator[PipelineEnd[Origin, Written]]:
    """Ends of a run in the order of its items, each as soon as it is there."""
    pending: deque[Future[PipelineEnd[Origin, Written]]] = deque()
    for future in ends:
        pending.append(future)
        while pending and (pending[0].done() or len(pending) > WRITE_BEHIND):
            yield pending.popleft().result()
    for future in pending:
        yield future.result()
