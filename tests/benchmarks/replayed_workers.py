"""Workers that take recorded times instead of segmenting; everything of the driver is real."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmed.archive import NotImage, Study
from segmed.archive.engine import Results
from segmed.archive.identifying import Answer, Files, Unidentified
from segmed.archive.job import Job, Result
from segmed.archive.study import content_hash
from segmed.archive.workers.messages import (
    FETCHES,
    Answered,
    FromDriver,
    FromWorker,
    Hello,
    Ticketed,
    WorkerTerms,
)
from segmed.archive.workers.pull_engine import PullEngine
from segmed.archive.workers.setup import Setup
from segmed.io.digest import sha256_of_text

STAGES = ("fetch", "read", "predict", "write")
"""Stages of a worker, each with its own studies at once."""

Times = dict[str, float]
"""Recorded seconds of a study: `identify`, and those of the stages that it has."""


@dataclass(frozen=True)
class NumberedSource:
    """So many studies, without files.

    Attributes:
        number: How many.
    """

    number: int

    def studies(self) -> Iterator[Study | NotImage]:
        raise AssertionError("the workers identify")

    def fetch(self, study: Study, folder: Path) -> Study:
        raise AssertionError("the workers fetch")

    def unidentified(self) -> Iterator[Study | NotImage | Unidentified]:
        for number in range(self.number):
            path = Path(f"{number:06d}.nii.gz")
            study = Study(
                "",
                "nifti",
                path.name,
                ((path,),),
                identity=f"{number}",
                source_name=path.stem,
            )
            yield Unidentified(Files(study.channels), study)

    def identified(self, item: Unidentified, answer: Answer | Exception) -> list[Study]:
        assert item.study is not None
        content = content_hash(answer)  # type: ignore[arg-type]  # digests
        return [Study(**{**vars(item.study), "content": content})]


class ReplayedWorker:
    """Times at which one worker is free again.

    Args:
        offset: Where in the recorded studies it begins.
    """

    def __init__(self, offset: int) -> None:
        self._number = itertools.count(offset)
        self._free = {stage: [0.0] * (FETCHES if stage == "fetch" else 1) for stage in STAGES}
        self._free["identify"] = [0.0] * FETCHES

    def end_of(self, order: FromDriver, now: float, recorded: Sequence[Times]) -> float:
        """Time at which it has done an order that arrives now."""
        if isinstance(order, Ticketed):
            return self._through("identify", now, recorded[order.ticket % len(recorded)])
        times = recorded[next(self._number) % len(recorded)]
        for stage in STAGES:
            now = self._through(stage, now, times)
        return now

    def _through(self, stage: str, now: float, times: Times) -> float:
        free = self._free[stage]
        first = free.index(min(free))
        free[first] = max(now, free[first]) + times.get(stage, 0.0)
        return free[first]


@dataclass
class ReplayHub:
    """Workers that answer after recorded times, on the real clock.

    Attributes:
        num_workers: How many.
        recorded: Times of studies.
        measures: What a segmentation measures.
        latency_s: Time of a message, recorded.
    """

    num_workers: int
    recorded: Sequence[Times]
    measures: dict[str, Any]
    latency_s: float
    most_in_hand: int = 0
    _ends: list[tuple[float, int, str, FromWorker]] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=itertools.count)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _is_closed: bool = False

    def __post_init__(self) -> None:
        names = [f"worker-{number}" for number in range(self.num_workers)]
        self._workers = {name: ReplayedWorker(17 * n) for n, name in enumerate(names)}
        for name in names:
            self._expect(0.0, name, Hello())

    def _expect(self, end: float, worker: str, message: FromWorker) -> None:
        heapq.heappush(self._ends, (end, next(self._count), worker, message))

    def send(self, orders: Sequence[tuple[str, FromDriver]]) -> None:
        now = time.perf_counter() + self.latency_s
        with self._news:
            for worker, order in orders:
                end = self._workers[worker].end_of(order, now, self.recorded) + self.latency_s
                self._expect(end, worker, self._message(order))
            self.most_in_hand = max(self.most_in_hand, len(self._ends))
            self._news.notify()

    def _message(self, order: FromDriver) -> FromWorker:
        if isinstance(order, Ticketed):
            return Answered(order.ticket, ((sha256_of_text(f"{order.ticket}"),),))
        assert isinstance(order, Job)
        return Result(order.key, output_sha256="0" * 64, seconds=1.0, measures=self.measures)

    def receive(self) -> Sequence[tuple[str, FromWorker]] | None:
        with self._news:
            while not self._is_closed:
                wait_s = self._ends[0][0] - time.perf_counter() if self._ends else None
                if wait_s is not None and wait_s <= 0:
                    _, _, worker, message = heapq.heappop(self._ends)
                    return [(worker, message)]
                self._news.wait(wait_s)
        return None

    def close(self) -> None:
        with self._news:
            self._is_closed = True
            self._news.notify()


@dataclass
class ReplayPool:
    """A pool for `segment_archive` with replayed workers."""

    packages: tuple[Path, ...]
    hub: ReplayHub
    options: dict[str, Any] = field(default_factory=dict)

    def engine(self, setup: Setup, results: Results) -> PullEngine:
        return PullEngine(WorkerTerms(setup), results, self.hub)
