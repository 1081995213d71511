"""The part of a worker in a run: one long task that pulls studies from the driver's queue."""

from __future__ import annotations

import queue
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from segmed.archive.identifying import answer_or_error
from segmed.archive.job import Job, Result
from segmed.archive.pacs.fetching import fetched
from segmed.archive.study import StudySource
from segmed.archive.workers.messages import (
    FETCHES,
    Answered,
    Failed,
    FromDriver,
    FromWorker,
    Hello,
    Ticketed,
    WorkerTerms,
)
from segmed.archive.workers.persistent import PersistentPool, pool_for
from segmed.errors import SegmedError
from segmed.io.scratch import scratch_space


class Link(Protocol):
    """Connection of a worker to its driver."""

    def receive(self) -> FromDriver | None:
        """Wait for a request; None once the driver has ended the run or is gone."""
        ...

    def send(self, message: FromWorker) -> None:
        """Send a message, without waiting; any thread may call."""
        ...


def serve_studies(terms: WorkerTerms, link: Link) -> None:
    """Identify and segment what the driver sends, until it ends the run.

    Args:
        terms: Terms of this machine's part.
        link: The connection to the driver.
    """
    try:
        _require_folders(terms)
        source = terms.open_source() if terms.open_source is not None else None
        pool = pool_for(terms.setup, terms.workers)
    except SegmedError as error:
        link.send(Failed(str(error)))
        return
    try:
        with scratch_space() as spool:
            _Part(terms, link, pool, source, spool).serve()
    finally:
        pool.leave()


def _require_folders(terms: WorkerTerms) -> None:
    """Check that this machine has the folders that all machines share.

    Raises:
        SegmedError: One is missing.
    """
    for folder in terms.folders:
        if not folder.is_dir():
            raise SegmedError(
                f"{folder} is no folder on this machine; mount it under the same path on all"
            )


@dataclass
class _Part:
    terms: WorkerTerms
    link: Link
    pool: PersistentPool
    source: StudySource | None
    spool: Path
    _inbox: queue.Queue[Any] = field(default_factory=queue.Queue)

    def serve(self) -> None:
        """Take requests until there are no more; what is in hand then is the next run's."""
        forwarder = threading.Thread(target=self._forward, name="segmed-forward", daemon=True)
        forwarder.start()
        threads = ThreadPoolExecutor(2 * FETCHES, "segmed-transfer")
        self.link.send(Hello())
        try:
            while (request := self.link.receive()) is not None:
                if isinstance(request, Ticketed):
                    threads.submit(self._identify, request)
                elif self.source is not None and not request.study.channels:
                    self.pool.fetches.submit(self._fetch, request, self.source)
                else:
                    self.pool.submit(request, self._inbox)
        finally:
            threads.shutdown(cancel_futures=True)
            self._inbox.put(None)
            forwarder.join()

    def _identify(self, request: Ticketed) -> None:
        """In a thread: answer a question about the source."""
        self.link.send(Answered(request.ticket, answer_or_error(request.question, self.source)))

    def _fetch(self, job: Job, source: StudySource) -> None:
        """In a thread: bring the files of a study here, and segment it."""
        folder = self._folder_of(job.key)
        folder.mkdir(exist_ok=True)
        got = fetched(job, source, folder, self.terms.retry)
        if isinstance(got, Job):
            self.pool.submit(got, self._inbox)
        else:
            self._inbox.put(got)

    def _forward(self) -> None:
        """In a thread: send each result to the driver, and remove what was fetched for it."""
        while (report := self._inbox.get()) is not None:
            if isinstance(report, Result):
                shutil.rmtree(self._folder_of(report.key), ignore_errors=True)
                self.link.send(report)
            else:
                self.link.send(Failed(str(report)))

    def _folder_of(self, key: str) -> Path:
        return self.spool / key
