"""Cases of a set prepared ahead of its trainings, so that each of them finds the cache full."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.comparing.jobs import TrainJob
from pipelines.comparing.progress import EVERY_S, Report, duration, report
from pipelines.comparing.settled_plan import settle_plan
from pipelines.comparing.training_job import is_kept
from segmed.errors import ManifestError, SegmedError
from segmed.manifest import read_manifest
from segmed.plan import read_plan
from segmed.plan.agreement import require_same_channels, require_same_labels
from segmed.preprocessing import PreparedCases

WORKERS = 2
"""Cases prepared at once, as in a training: each takes memory for a whole image."""

CHUNK = 16
"""Most cases of a chunk: Prefect keeps a record of each chunk, not of each case."""

TITLE = "preprocessing"


@dataclass(frozen=True)
class Preparation:
    """Training cases of a set to prepare; cases kept for testing are read by no training.

    Attributes:
        manifest_path: The manifest.
        plan_path: The plan, which says how.
        cache_dir: Folder of prepared cases.
    """

    manifest_path: Path
    plan_path: Path
    cache_dir: Path

    @staticmethod
    def parse(manifest_path: Path, plan_path: Path, cache_dir: Path) -> Preparation:
        """A preparation whose plan is checked against the manifest.

        Raises:
            ManifestError: The manifest cannot be read.
            UsageError: The plan cannot be read, or was made for another image set.
        """
        settle_plan(manifest_path, plan_path, cache_dir)
        return Preparation(manifest_path, plan_path, cache_dir)


@dataclass(frozen=True)
class Chunk:
    """Some cases that are not in the cache yet.

    Attributes:
        preparation: Where they come from and go to.
        case_ids: Names of the cases.
        first: Number of the first one among all that are missing, from 1.
        of: Number of all that are missing.
    """

    preparation: Preparation
    case_ids: tuple[str, ...]
    first: int
    of: int

    @property
    def last(self) -> int:
        """Number of the last one."""
        return self.first + len(self.case_ids) - 1


@dataclass
class Tally:
    """Cases prepared so far, over all threads; reported now and then.

    Attributes:
        of: Cases to prepare.
        is_stopped: Chunks end after the case in hand.
    """

    of: int
    is_stopped: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    _begun: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def add(self) -> None:
        """Count one case."""
        with self._turn:
            self.done += 1
            spent = time.monotonic() - self._begun
            state = f"case {self.done} of {self.of}"
            left_s = spent / self.done * (self.of - self.done)
            is_due = time.monotonic() - self._said >= EVERY_S
            if is_due:
                self._said = time.monotonic()
            shown = Report(TITLE, state, self.done / self.of, left_s)
            report(
                f"{TITLE}  {state}, {duration(spent)}",
                shown,
                level=logging.INFO if is_due else logging.DEBUG,
            )

    def end(self) -> None:
        """Report the end, complete or not; nothing where no case was missing."""
        if not self.of:
            return
        line = f"{TITLE}  {self.done} of {self.of} cases prepared in "
        line += duration(time.monotonic() - self._begun)
        report(line, Report(TITLE, "prepared", self.done / self.of, is_over=True))


def preparation_of(jobs: Sequence[TrainJob]) -> Preparation | None:
    """The preparation that trainings of one comparison need; None where all are kept."""
    for job in jobs:
        if not is_kept(job):
            cache_dir = job.fit_settings.cache_dir
            assert cache_dir is not None
            return Preparation(job.manifest_path, job.plan_path, cache_dir)
    return None


def missing_chunks(preparation: Preparation) -> list[Chunk]:
    """The training cases that the cache does not hold yet, in chunks.

    Raises:
        ManifestError: A file is missing, or holds something else than the manifest says.
        UsageError: The plan was made for another image set.
    """
    ids = [case.id for case in _cases(preparation).missing()]
    size = max(1, min(CHUNK, math.ceil(len(ids) / (2 * WORKERS))))
    return [
        Chunk(preparation, tuple(ids[start : start + size]), start + 1, len(ids))
        for start in range(0, len(ids), size)
    ]


def prepare_chunk(chunk: Chunk, tally: Tally) -> int:
    """Prepare the cases of a chunk; safe to repeat, since a case in the cache costs nothing.

    Returns:
        How many were prepared: all, unless the tally was stopped.

    Raises:
        ManifestError: A case cannot be prepared; the message names it.
    """
    cases = _cases(chunk.preparation, chunk.case_ids)
    done = 0
    for index, case_id in enumerate(chunk.case_ids):
        if tally.is_stopped.is_set():
            break
        try:
            cases.case(index)
        except SegmedError as error:
            raise ManifestError(f"case {case_id}: {error}") from error
        done += 1
        tally.add()
    return done


def _cases(preparation: Preparation, case_ids: Sequence[str] | None = None) -> PreparedCases:
    """The training cases of a preparation, or some of them.

    Raises:
        ManifestError: The manifest cannot be read.
        UsageError: The plan was made for another image set.
    """
    manifest, plan = read_manifest(preparation.manifest_path), read_plan(preparation.plan_path)
    require_same_labels(plan, manifest)  # a deployed run comes without `parse`
    require_same_channels(plan, manifest)
    return PreparedCases(manifest, plan, preparation.cache_dir, cases=case_ids)
