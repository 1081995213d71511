"""Segment studies in this process: reading, the network and writing overlap, a few at a time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from segmed.archive.gallery import Gallery
from segmed.archive.job import Job, Result, failure_result
from segmed.archive.study import Study
from segmed.archive.writing import Writing
from segmed.inference import Predictor
from segmed.io import read_images
from segmed.io.dicom.series import read_series
from segmed.io.read import as_channels, notes_of
from segmed.io.sandboxed import read_images_sandboxed, read_series_sandboxed
from segmed.metatensor import MetaTensor
from segmed.metrics.measures import measure
from segmed.preprocessing import Prepared, prepare

AHEAD = 2
"""Studies that wait, read or unwritten, between two stages."""


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
        """Whether it brings studies here itself, so that jobs may come without files."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job in hand; any thread may call."""
        ...

    def close(self) -> None:
        """End threads and processes; jobs not yet begun are dropped."""
        ...


Results = queue.Queue[Any]
"""Where engines put each `Result`, or the exception that stops them."""


@dataclass
class _Work:
    """A job on its way through the stages."""

    job: Job
    seconds: float = 0.0
    image: MetaTensor | None = None
    prepared: Prepared | None = None
    label: MetaTensor | None = None
    measures: dict[str, Any] = field(default_factory=dict)
    digest: str = ""


class ThreadEngine:
    """Three threads, one for reading, one for the network, one for writing.

    Args:
        predictor: The model, loaded.
        writing: How outputs are written.
        results: Where results go.
        sandboxed: Decode compressed DICOM and raster images in processes of their own; not needed
            where this process is itself one that may die.
    """

    capacity = 3 + 2 * AHEAD
    fetches = False

    def __init__(
        self, predictor: Predictor, writing: Writing, results: Results, *, sandboxed: bool = True
    ) -> None:
        self._predictor = predictor
        self._writing = writing
        self._gallery = (
            None if writing.pictures is None else Gallery(writing.pictures, writing.labels)
        )
        self._results = results
        self._sandboxed = sandboxed
        self._is_stopping = False
        self._to_read: queue.Queue[_Work | None] = queue.Queue()
        self._to_predict: queue.Queue[_Work | None] = queue.Queue(AHEAD)
        self._to_write: queue.Queue[_Work | None] = queue.Queue(AHEAD)
        stages = [
            (self._read, self._to_read, self._to_predict),
            (self._predict, self._to_predict, self._to_write),
            (self._write, self._to_write, None),
        ]
        self._threads = [
            threading.Thread(target=self._stage, args=stage, name=f"segmed-{number}", daemon=True)
            for number, stage in enumerate(stages)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Take a job in hand."""
        self._to_read.put(_Work(job))

    def close(self) -> None:
        """Let the threads finish the studies they work on, and end them."""
        self._is_stopping = True
        self._to_read.put(None)
        for thread in self._threads:
            thread.join()

    def _stage(
        self,
        act: Callable[[_Work], None],
        inbox: queue.Queue[_Work | None],
        outbox: queue.Queue[_Work | None] | None,
    ) -> None:
        while (work := inbox.get()) is not None:
            if self._is_stopping:
                continue
            begun = time.perf_counter()
            try:
                act(work)
            except Exception as error:  # noqa: BLE001 - one study ends badly, the rest go on
                seconds = work.seconds + time.perf_counter() - begun
                self._results.put(
                    failure_result(work.job.key, error, work.job.study.files, seconds)
                )
                continue
            work.seconds += time.perf_counter() - begun
            if outbox is not None:
                outbox.put(work)
            else:
                self._results.put(
                    Result(
                        work.job.key,
                        output_sha256=work.digest,
                        seconds=work.seconds,
                        measures=work.measures,
                    )
                )
        if outbox is not None:
            outbox.put(None)

    def _read(self, work: _Work) -> None:
        work.image = read_study(
            work.job.study, self._predictor.plan.in_channels, sandboxed=self._sandboxed
        )
        self._predictor.require_fitting(work.image)
        work.prepared = prepare(work.image, self._predictor.plan)

    def _predict(self, work: _Work) -> None:
        assert work.prepared is not None
        work.label = self._predictor.segment(work.prepared).label
        work.prepared = None

    def _write(self, work: _Work) -> None:
        assert work.image is not None
        assert work.label is not None
        writing = self._writing
        work.measures = measure(work.image, work.label, writing.labels, ranges=writing.ranges)
        work.measures["notes"] = list(notes_of(work.image))
        work.digest = self._writing.write(work.job.output, work.label, like=work.image)
        if self._gallery is not None:
            flags = work.measures["flags"]
            self._gallery.offer(work.job.key, flags, work.image, work.label)
        work.image = work.label = None


def read_study(study: Study, num_channels: int = 1, *, sandboxed: bool = True) -> MetaTensor:
    """The image of a study, `[C, *spatial]`.

    Args:
        study: The study, its files on this machine.
        num_channels: Channels that are expected of a single file; see `read_image`.
        sandboxed: Decode compressed DICOM and raster images in processes of their own.

    Raises:
        ImageError: It cannot be read correctly.
    """
    if not study.audits:
        paths = [channel[0] for channel in study.channels]
        read_all = read_images_sandboxed if sandboxed else read_images
        return read_all(paths, num_channels=num_channels)
    read = read_series_sandboxed if sandboxed else read_series
    names = [f"channel {number}" for number in range(1, len(study.audits) + 1)]
    return as_channels([read(audit) for audit in study.audits], names)
