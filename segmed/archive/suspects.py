"""Studies in hand when a run's process died: segmented again in a process of their own."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from segmed.archive.engine import Results, StudyEngine
from segmed.archive.identifying import Identifier
from segmed.archive.job import Job
from segmed.archive.workers.engine import WorkerEngine
from segmed.archive.workers.setup import Setup
from segmed.archive.writing import Writing
from segmed.inference.joined import AnyPredictor, JoinedPredictor
from segmed.io.scratch import scratch_folder

SAME_ENGINE = {"cuda": "auto"}
"""Engine of a worker by the engine of this process, where the two differ."""


class SuspectEngine:
    """Hands suspects to a worker process, which may die, and all other studies to an engine here.

    One of the studies in hand may have been what killed the process: a decoder that crashed, or
    more memory than there was. A worker that dies of it takes nothing along, and the study is then
    refused by name instead of being tried at each start.

    Args:
        engine: The engine in this process.
        suspects: Keys of the suspects.
        predictor: The model that the engine has loaded; the worker loads it once more.
        writing: How outputs are written.
        results: Where results go.
    """

    fetches = False
    identifier: Identifier | None = None

    def __init__(
        self,
        engine: StudyEngine,
        suspects: Collection[str],
        *,
        predictor: AnyPredictor,
        writing: Writing,
        results: Results,
    ) -> None:
        self.capacity = engine.capacity
        self._engine = engine
        self._suspects = frozenset(suspects)
        self._predictor = predictor
        self._writing = writing
        self._results = results
        self._worker: WorkerEngine | None = None
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def submit(self, job: Job) -> None:
        """Take a job in hand; any thread may call."""
        if job.key not in self._suspects:
            self._engine.submit(job)
            return
        with self._lock:
            if self._worker is None:
                self._worker = self._started()
        self._worker.submit(job)

    def close(self) -> None:
        """End threads and processes; jobs not yet begun are dropped."""
        if self._worker is not None:
            self._worker.close()
        self._engine.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _started(self) -> WorkerEngine:
        """A worker with the same model, device and engine."""
        self._folder = scratch_folder()
        packages = tuple(
            package.save(self._folder / str(number))
            for number, package in enumerate(self._predictor.packages)
        )
        whole = self._predictor
        first = whole.predictors[0] if isinstance(whole, JoinedPredictor) else whole
        name = first.engines[0].name
        options: dict[str, Any] = {
            "engine": SAME_ENGINE.get(name, name),
            "device": str(first.device),
            "tta": whole.tta,
            "memory_gb": whole.memory_gb,
            "any_modality": first.any_modality,
        }
        if isinstance(whole, JoinedPredictor):
            options["joining"] = whole.joining
        return WorkerEngine(Setup(packages, self._writing, options), self._results)
