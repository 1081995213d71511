"""Segment an archive: every study exactly once, also after failures and killed runs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from segmed.archive.engine import Results, StudyEngine
from segmed.archive.identifying import studies_of
from segmed.archive.job import Job, Result, failure_result
from segmed.archive.ledger import Entry, Ledger
from segmed.archive.ledger.reconcile import is_intact, withdraw_result
from segmed.archive.model import Model
from segmed.archive.naming import OutputNames
from segmed.archive.outcomes import outcome_in
from segmed.archive.pacs.delivery import Delivery, RetryPolicy
from segmed.archive.pacs.fetching import fetched
from segmed.archive.reissued_reports import report_as_correction, send_voided
from segmed.archive.study import NotImage, Study, StudyOutcome, StudySource, key_of
from segmed.archive.transfers import TransferTimes
from segmed.archive.writing import free_bytes
from segmed.errors import AccessDeniedError, ServiceError
from segmed.formats import BINARY_SEG, SegForm
from segmed.io.output_names import NameKind, absolute, shown
from segmed.io.scratch import scratch_folder
from segmed.outcomes import ACCESS_DENIED, SERVICE
from segmed.quality.risk import RiskTarget

logger = logging.getLogger(__name__)

MIN_FREE_BYTES = 256 * 2**20
"""Space that stays free on the output disk, so that the ledger can always be written."""

TRANSFERS = 2
"""Fetches, and deliveries, that go on at once."""

MOST_UNANSWERED = 5
"""Studies in a row that may end without an answer of a server, each after all tries."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run besides source, model and output folder.

    Attributes:
        limit: Work on at most this many studies, then stop.
        resegment: Also segment studies that another model package has done.
        min_free_bytes: Studies fail with `disk_full` rather than leave less space than this.
        most_unanswered: The run ends after so many studies in a row without an answer of a server,
            each after all tries; infinite for one that has no end.
        retry: How long networks are waited for.
        table: Kind of the volumes table, `csv` or `parquet`.
        names: Kind of output names, `source` or `hash`; None: of image files `source`, of DICOM
            series `hash`.
        seg: Form of DICOM segmentations.
        target: Promise about unreviewed results, of a model that predicts quality; the model's own
            if not given.
    """

    limit: int | None = None
    resegment: bool = False
    min_free_bytes: int = MIN_FREE_BYTES
    most_unanswered: float = MOST_UNANSWERED
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    table: str = "csv"
    names: NameKind | None = None
    target: RiskTarget | None = None
    seg: SegForm = BINARY_SEG


@dataclass(frozen=True)
class Delivered:
    """A delivery that came to its end.

    Attributes:
        key: The study's key.
        address: Where the output is to be found; empty when it failed.
        message: Why it failed.
        reason: Code of the failure, as `failure_result` gives it.
    """

    key: str
    address: str = ""
    message: str = ""
    reason: str = SERVICE


@dataclass
class Run:
    """One run: decides about each study, hands jobs to the engine, and books what comes back.

    The ledger is touched by the thread that iterates only; fetching, segmenting and delivering go
    on in others, and report through one queue.

    Attributes:
        ledger: The ledger, reconciled.
        out_dir: Folder that output names are relative to.
        names: Names of the outputs.
        settings: What changes outputs besides content and package.
        model: The model.
        source: Where studies come from.
        engine: Who segments them.
        results: The queue that the engine reports to.
        delivery: Where outputs are sent, if they are.
        options: Limits and manners.
        number: Number of the run in the ledger.
        transfers: Seconds of fetching and sending of each study.
    """

    ledger: Ledger
    out_dir: Path
    names: OutputNames
    settings: str
    model: Model
    source: StudySource
    engine: StudyEngine
    results: Results
    delivery: Delivery | None
    options: RunOptions
    number: int
    transfers: TransferTimes = field(default_factory=TransferTimes)
    _begun: int = 0
    _in_hand: dict[str, int] = field(default_factory=dict)
    _outputs: dict[str, str] = field(default_factory=dict)
    _spools: dict[str, Path] = field(default_factory=dict)
    _decided: list[StudyOutcome] = field(default_factory=list)
    _unanswered: int = 0
    _transfers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(2 * TRANSFERS, "segmed-transfer")
    )

    def __iter__(self) -> Iterator[StudyOutcome]:
        """Outcomes, in the order in which studies end."""
        for item in studies_of(self.source, self.engine.identifier):
            if item is not None:
                self.take(item)
            yield from self.ended()
            while self.in_hand >= self.engine.capacity + TRANSFERS:
                yield from self._settle()
            yield from self.ended()
            if self._begun == self.options.limit:
                break
        while self._in_hand:
            yield from self._settle()

    @property
    def in_hand(self) -> int:
        """Number of studies that are being fetched, segmented or delivered."""
        return len(self._in_hand)

    def take(self, item: Study | NotImage) -> str | None:
        """Decide about one study and begin work on it; outcomes come from `ended`.

        Returns:
            Its key; None for a file without an image.
        """
        if isinstance(item, NotImage):
            self.ledger.note_not_image(item, run=self.number)
            return None
        key, package = key_in(
            self.ledger, item, self.model, self.settings, resegment=self.options.resegment
        )
        outcome = self._take(item, key, package)
        if outcome is not None:
            self._decided.append(outcome)
        return key

    def ended(self) -> Iterator[StudyOutcome]:
        """Outcomes that are there, booked, without waiting for others.

        Raises:
            ServiceError: The server refuses or does not answer, see `_require_service`.
        """
        while self._decided:
            outcome = self._decided.pop(0)
            yield outcome
            if outcome.fresh and outcome.reason:
                self._require_service(outcome)
        while not self.results.empty():
            yield from self._settle()

    def begin_round(self, *, is_first: bool = False) -> None:
        """Count what is met from now on as met later: content that changed replaces its result.

        Args:
            is_first: What was met before belongs to another run, which was ended.
        """
        self.number = self.ledger.begin_round(self.model.hash, is_first=is_first)

    def close(self) -> None:
        """End threads and processes; studies in hand are left to the next run."""
        self._transfers.shutdown(cancel_futures=True)
        self.engine.close()
        for key in self._in_hand:  # stopped, not killed: these are under no suspicion
            self.ledger.release(key)
        for folder in self._spools.values():
            shutil.rmtree(folder, ignore_errors=True)

    def _take(self, study: Study, key: str, package: str) -> StudyOutcome | None:
        """Decide about one study: its outcome if it is settled, else None and work begun."""
        entry = self.ledger.enter(study, key, package, settings=self.settings, run=self.number)
        self._replace_earlier(key)
        if key in self._in_hand:
            self._in_hand[key] += 1
            return None
        if study.fault is not None:
            fault = study.fault
            is_known = entry.state == "refused"
            self.ledger.record_failure(
                key,
                fault.reason,
                fault.message,
                refused=not study.environment,
                run=None if is_known else self.number,
                files=_as_text(fault.files),
            )
            return outcome_in(self.ledger, key, self.number, fresh=not is_known)
        if entry.state == "done" or (entry.state == "refused" and entry.attempts > 0):
            return outcome_in(self.ledger, key, self.number, fresh=False)
        if free_bytes(self.out_dir) < self.options.min_free_bytes:
            self.ledger.record_failure(
                key,
                "disk_full",
                f"less than {self.options.min_free_bytes >> 20} MiB are free on the output disk; "
                "free some and run again",
                refused=False,
                run=self.number,
            )
            return outcome_in(self.ledger, key, self.number, fresh=True)
        if self.delivery is not None and is_intact(entry, self.out_dir):
            self._in_hand[key] = 1
            self._transfers.submit(self._deliver, key, self.out_dir / str(entry.output))
            return None
        output = self.names.reserve(study, entry)
        if output is None:
            message = "every name of its output is taken by a file of unknown origin; remove it"
            self.ledger.record_failure(key, "name_taken", message, refused=False, run=self.number)
            return outcome_in(self.ledger, key, self.number, fresh=True)
        self._begin(study, entry, output)
        return None

    def _begin(self, study: Study, entry: Entry, output: str) -> None:
        self._in_hand[entry.key] = 1
        self._begun += 1
        self._outputs[entry.key] = output
        self.ledger.start(entry.key, run=self.number)
        job = Job(entry.key, study, self.out_dir / output)
        if study.channels or self.engine.fetches:
            self.engine.submit(job)
        else:
            spool = scratch_folder()
            self._spools[entry.key] = spool
            self._transfers.submit(self._fetch, job, spool)

    def _fetch(self, job: Job, spool: Path) -> None:
        """In a thread: bring a study's files here, then hand it to the engine."""
        with self.transfers.measured(job.key, "fetching"):
            got = fetched(job, self.source, spool, self.options.retry)
        if isinstance(got, Job):
            self.engine.submit(got)
        else:
            self.results.put(got)

    def _deliver(self, key: str, path: Path) -> None:
        """In a thread: send an output on."""
        assert self.delivery is not None
        send = self.delivery.deliver
        try:
            with self.transfers.measured(key, "sending"):
                address = self.options.retry.call(lambda: send(path))
        except Exception as error:  # noqa: BLE001 - one study ends badly, the rest go on
            end = failure_result(key, error, (path,))
            reason = end.reason if isinstance(error, ServiceError) else SERVICE
            self.results.put(Delivered(key, message=end.message, reason=reason))
        else:
            self.results.put(Delivered(key, address))

    def _settle(self) -> Iterator[StudyOutcome]:
        """Wait for one report and book it."""
        if self.results.empty():
            self.ledger.commit()
        report = self.results.get()
        if isinstance(report, Exception):
            raise report
        if isinstance(report, Result) and not report.reason:
            self._book_output(report)
            if self.delivery is not None:
                path = self.out_dir / str(self.ledger.entry(report.key).output)
                self._transfers.submit(self._deliver, report.key, path)
                return
        elif isinstance(report, Result):
            self.ledger.record_failure(
                report.key,
                report.reason,
                report.message,
                refused=report.refused,
                files=_as_text(report.files),
            )
        elif report.address:
            self.ledger.finish(report.key, delivered=report.address)
        else:
            self.ledger.record_failure(report.key, report.reason, report.message, refused=False)
        self._outputs.pop(report.key, None)
        spool = self._spools.pop(report.key, None)
        if spool is not None:
            shutil.rmtree(spool, ignore_errors=True)
        self._replace_earlier(report.key)
        outcome = outcome_in(self.ledger, report.key, self.number, fresh=True)
        for _ in range(self._in_hand.pop(report.key)):
            yield outcome
        self._require_service(outcome)

    def _require_service(self, outcome: StudyOutcome) -> None:
        """End the run if the server refuses or does not answer.

        Raises:
            AccessDeniedError: The server refuses the caller.
            ServiceError: Several studies in a row got no answer, each after all its tries.
        """
        code, _, message = outcome.reason.partition(": ")
        if code == ACCESS_DENIED:
            raise AccessDeniedError(message)
        self._unanswered = self._unanswered + 1 if code == SERVICE else 0
        if self._unanswered >= self.options.most_unanswered:
            raise ServiceError(
                f"{self._unanswered} studies in a row ended without an answer, the last one: "
                f"{message}; run again to continue"
            )

    def _replace_earlier(self, key: str) -> None:
        """Withdraw the results that the present state of an input replaces."""
        for entry in self.ledger.replace_earlier(key):
            logger.info("study %s is replaced: its input has changed since", entry.study)
            withdraw_result(self.ledger, self.out_dir, entry, self.delivery)
            send_voided(self.out_dir, self.delivery)

    def _book_output(self, result: Result) -> None:
        output = self._outputs[result.key]
        path = self.out_dir / output
        reported = report_as_correction(self.ledger, result.key, path, self.out_dir)
        self.ledger.note_output(
            result.key,
            output,
            result.output_sha256,
            seconds=result.seconds,
            measures={**result.measures, **reported},
            is_final=self.delivery is None,
        )


def _as_text(files: Sequence[Path]) -> list[str]:
    """Files at fault as the ledger keeps them."""
    return [shown(absolute(path)) for path in files]


def key_in(
    ledger: Ledger, study: Study, model: Model, settings: str, *, resegment: bool
) -> tuple[str, str]:
    """Key and package under which a study is booked: other models' work is kept by default.

    A study that an earlier version of segmed knew by another hash keeps its entry, if this place
    alone has that entry: several inputs may have had one hash then.
    """
    key = key_of(study.content, model.hash, settings)
    if ledger.has(key):
        return key, model.hash
    older = key_of(study.older_content, model.hash, settings)
    if study.older_content and _has_alone(ledger, study, older):
        return older, model.hash
    if not resegment:
        for content in filter(None, (study.content, study.older_content)):
            other = ledger.done_by_another(content, model.hash, settings)
            if other is not None and (
                content == study.content or _has_alone(ledger, study, other.key)
            ):
                return other.key, other.package
    return key, model.hash


def _has_alone(ledger: Ledger, study: Study, key: str) -> bool:
    """Return whether all places of a key belong to a study, in this or an earlier form."""
    places = ledger.places(key)
    return bool(places) and all(f"{study.place} ".startswith(f"{place} ") for place in places)
