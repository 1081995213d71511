"""Segment the studies of an archive in this process: the pipeline, fed and read through queues."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from segmed.archive.gallery import Gallery
from segmed.archive.identifying import Identifier
from segmed.archive.job import Job, Result, failure_result
from segmed.archive.writing import Writing
from segmed.errors import ServiceError
from segmed.inference import Segmentation
from segmed.inference.joined import AnyPredictor
from segmed.inference.pipeline import READ_AHEAD, WRITE_BEHIND, Pipeline, PipelineEnd, PipelineItem
from segmed.io.dicom.audit import BURNED_IN
from segmed.io.read import notes_of
from segmed.metatensor import MetaTensor
from segmed.metrics.measures import measure, overpainted_flags
from segmed.outcomes import GPU_FAULT

IN_STAGES = 3
"""Studies that are read, segmented and written at one moment."""


GPU_FAULT_ADVICE = (
    "this process can use the GPU no more; the same command goes on with the studies that are "
    "left; with --workers 1 a process whose GPU failed is replaced during the run"
)


class StudyEngine(Protocol):
    """Segments jobs in any order and puts each `Result` into the queue it was made with.

    An exception in that queue means that the engine cannot work at all.
    """

    @property
    def capacity(self) -> int:
        """Jobs worth having in hand at once."""
        ...

    @property
    def fetches(self) -> bool:
        """Return whether it brings studies here itself, so that jobs may come without files."""
        ...

    @property
    def identifier(self) -> Identifier | None:
        """Identifies studies in its threads or workers; None: the thread of the run does."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job in hand; any thread may call."""
        ...

    def close(self) -> None:
        """End threads and processes; jobs not yet begun are dropped."""
        ...


Results = queue.Queue[Any]
"""Where engines put each `Result`, or the exception that stops them."""


class ArchiveSink:
    """Outputs of an archive: measured, written whole, and drawn where they are worth a look.

    Args:
        writing: Form and place of the outputs.
    """

    keeps_image = True

    def __init__(self, writing: Writing) -> None:
        self.format = writing.format
        self._writing = writing
        self._gallery = (
            None if writing.pictures is None else Gallery(writing.pictures, writing.labels)
        )

    def output_for(self, origin: Job, image: MetaTensor) -> Path:
        """File that the ledger has reserved for the study."""
        return origin.output

    def write(self, origin: Job, output: Path, image: MetaTensor, found: Segmentation) -> Result:
        """Measure and write one segmentation; the result lacks its time."""
        writing = self._writing
        measures = measure(image, found.label, writing.labels, ranges=writing.ranges)
        notes = measures["notes"] = list(notes_of(image))
        if found.overpainted:
            measures["overpainted"] = dict(found.overpainted)
            measures["flags"] += overpainted_flags(found.overpainted)
        if found.quality is not None:
            measures["quality"] = found.quality.record()
        digest = writing.write(output, found, like=image, measures=measures)
        if self._gallery is not None and not any(BURNED_IN in note for note in notes):
            self._gallery.offer(origin.key, measures, image, found.label)
        return Result(origin.key, output_sha256=digest, measures=measures)


class ThreadEngine:
    """The pipeline in a thread: jobs come by `submit`, results go into a queue.

    Args:
        predictor: The model, loaded.
        writing: Form and place of the outputs.
        results: Queue of the results.
        trusted: Decode everything in this process, where it is itself one that may die.
    """

    capacity = IN_STAGES + READ_AHEAD + WRITE_BEHIND
    fetches = False
    identifier: Identifier | None = None

    def __init__(
        self, predictor: AnyPredictor, writing: Writing, results: Results, *, trusted: bool = False
    ) -> None:
        sink = ArchiveSink(writing)
        self._pipeline = Pipeline(predictor, sink, trusted=trusted, seg=writing.seg)
        self._results = results
        self._is_replaceable = trusted
        self._is_stopping = False
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="segmed-network", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Accept a job."""
        self._jobs.put(job)

    def close(self) -> None:
        """Let the studies in the pipeline come to their end, and end its threads."""
        self._is_stopping = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        """In a thread: run the pipeline until the engine is closed."""
        try:
            with closing(self._pipeline.run(self._items())) as ends:
                for end in ends:
                    end.add_done_callback(self._report)
                    if self._is_stopping:
                        break
        except Exception as error:  # noqa: BLE001 - the run that waits for results must end with it
            self._results.put(error)

    def _items(self) -> Iterator[PipelineItem[Job]]:
        """In the reading thread: jobs as they come, until the engine is closed."""
        while (job := self._jobs.get()) is not None and not self._is_stopping:
            yield PipelineItem(job.study.case, job)

    def _report(self, end: Future[PipelineEnd[Job, Result]]) -> None:
        result = result_of(end.result())
        if result.reason == GPU_FAULT and not self._is_replaceable:
            self._results.put(ServiceError(f"{result.message}: {GPU_FAULT_ADVICE}"))
        else:
            self._results.put(result)


def result_of(end: PipelineEnd[Job, Result]) -> Result:
    """Result of a job from the end of its image."""
    seconds = sum(end.seconds.values())
    if end.error is not None:
        return failure_result(end.origin.key, end.error, end.origin.study.files, seconds)
    assert end.written is not None  # without an error there is one
    return replace(end.written, seconds=seconds)
