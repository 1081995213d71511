"""Segment an archive: the one call that ties source, ledger, engine and outputs together."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from segmed.archive.engine import Results, StudyEngine, ThreadEngine
from segmed.archive.folder_source import FolderSource
from segmed.archive.index import write_index
from segmed.archive.ledger import Ledger
from segmed.archive.ledger.file import LEDGER_FILE
from segmed.archive.ledger.reconcile import reconcile
from segmed.archive.model import Model, model_of, read_packages
from segmed.archive.naming import OUTPUTS, OutputNames
from segmed.archive.outcomes import OUTCOMES_FILE, outcome_of, write_outcomes
from segmed.archive.pacs.delivery import Delivery
from segmed.archive.pacs.reporting import with_sr
from segmed.archive.quality_bound import settle_bound
from segmed.archive.recalled_reports import recall_intervals
from segmed.archive.review.structures import note_structures
from segmed.archive.run import Run, RunOptions, key_in
from segmed.archive.run_page import PICTURES, write_run_page
from segmed.archive.study import ForeseenOutcome, NotImage, Study, StudyOutcome, StudySource, key_of
from segmed.archive.suspects import SuspectEngine
from segmed.archive.totals import OnTotal, counted
from segmed.archive.volumes import check_kind
from segmed.archive.workers.engine import WorkerEngine
from segmed.archive.workers.setup import Setup
from segmed.archive.writing import STAGING, Writing
from segmed.formats import ARCHIVE_OUTPUTS, SegForm, output_named, require_seg_form
from segmed.inference import Predictor
from segmed.inference.joined import AnyPredictor, JoinedPredictor, joined_tta
from segmed.io.output_names import check_names

DEFAULT_OPTIONS = RunOptions()


class WorkerPool(Protocol):
    """A model to be loaded elsewhere, and who loads it.

    Attributes:
        packages: Folder of the package, or folders of an ensemble's.
        options: Options of the predictor: `device`, `engine`, `tta`.
    """

    @property
    def packages(self) -> tuple[Path, ...]: ...  # noqa: D102 - see above

    @property
    def options(self) -> dict[str, Any]: ...  # noqa: D102 - see above

    def engine(self, setup: Setup, results: Results) -> StudyEngine:
        """Return the engine; it is started with `setup` and reports to `results`."""
        ...


@dataclass(frozen=True)
class Workers:
    """A model to be loaded by worker processes, which a deadly study cannot take the run with.

    Attributes:
        packages: Folder of the package, or folders of an ensemble's.
        number: How many processes; each loads the model once.
        options: Options of the predictor: `device`, `engine`, `tta`.
        timeout_s: Longest time without a result while a worker has a study, in s; None for ever.
        devices: Devices that the processes take in turn, such as `("cuda:0", "cuda:1")`, instead
            of the one device that `options` name.
    """

    packages: tuple[Path, ...]
    number: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    devices: tuple[str, ...] = ()

    def engine(self, setup: Setup, results: Results) -> StudyEngine:
        """Processes on this machine."""
        return WorkerEngine(
            setup,
            results,
            workers=self.number,
            timeout_s=self.timeout_s,
            devices=self.devices,
        )


def segment_archive(
    source: StudySource,
    *,
    predictor: AnyPredictor | WorkerPool | Path | Sequence[Path],
    out_dir: Path,
    ledger_path: Path | None = None,
    format: str = "nifti",
    delivery: Delivery | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
    on_total: OnTotal | None = None,
) -> Iterator[StudyOutcome]:
    """Segment every study of a source once; yield the outcome of each.

    The ledger is brought in line with the files first, so a run that was killed at any moment
    continues. `out_dir/outcomes.json` is written at the end, also when the caller stops early.

    Args:
        source: Where the studies come from.
        predictor: The model, loaded with a named engine, to be used in this process; or `Workers`
            (a package folder, or several, mean one worker) or another pool, to be loaded by
            processes of their own.
        out_dir: Where segmentations, ledger and outcomes go.
        ledger_path: The ledger, if not `out_dir/ledger.sqlite`.
        format: `nifti`, `seg-nrrd`, `dicom-seg` or `rtstruct`.
        delivery: Where outputs are sent besides.
        options: Limits and manners of the run.
        on_total: Called in another thread with the number of studies, see `totals.counted`.

    Yields:
        One outcome for each study met, in the order in which they end.

    Raises:
        UsageError: Another run is writing here, or an option is unknown.
        PackageError: A package is damaged.
        ServiceError: The ledger cannot be written, or source or delivery do not answer.
    """
    with open_run(
        source,
        predictor=predictor,
        out_dir=out_dir,
        ledger_path=ledger_path,
        format=format,
        delivery=delivery,
        options=options,
        on_total=on_total,
    ) as run:
        yield from run
        run.ledger.end_run(run.number)


@contextmanager
def open_run(
    source: StudySource,
    *,
    predictor: AnyPredictor | WorkerPool | Path | Sequence[Path],
    out_dir: Path,
    ledger_path: Path | None = None,
    format: str = "nifti",
    delivery: Delivery | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
    on_total: OnTotal | None = None,
) -> Iterator[Run]:
    """A run with its ledger and engine; at the end of the block its records are written.

    The arguments and errors are those of `segment_archive`.

    Yields:
        The run, nothing begun.
    """
    output_format = output_named(format, ARCHIVE_OUTPUTS)
    check_kind(options.table)
    check_names(options.names)
    pool = predictor if isinstance(predictor, AnyPredictor) else _worker_pool(predictor)
    model, tta = _identify(pool)
    require_seg_form(options.seg, format, model.labels)
    writing = Writing(
        output_format,
        model.labels,
        model.name,
        model.hash,
        model.ranges,
        pictures=out_dir / PICTURES,
        drafts=out_dir / OUTPUTS / STAGING,
        seg=options.seg,
        bound_dir=out_dir,
    )
    if delivery is not None and "sr" in options.seg.reports:
        delivery = with_sr(delivery)
    results: Results = queue.Queue()
    _keep_private(ledger_path or out_dir / LEDGER_FILE)
    (out_dir / OUTPUTS).mkdir(parents=True, exist_ok=True)
    with Ledger(ledger_path or out_dir / LEDGER_FILE) as ledger:
        options.retry.call(lambda: reconcile(ledger, out_dir, out_dir / OUTPUTS, delivery))
        note_structures(out_dir, model.hash, model.name, model.labels, model.num_channels)
        number = ledger.begin_run(model.hash)
        source = _fitted(source, out_dir, model)
        if on_total is not None:
            source = counted(source, on_total)
        run = Run(
            ledger=ledger,
            out_dir=out_dir,
            names=OutputNames(ledger, out_dir, format, model.hash, options.names),
            settings=_settings(format, options.seg, tta=tta),
            model=model,
            source=source,
            engine=_engine(pool, writing, results, ledger.suspects()),
            results=results,
            delivery=delivery,
            options=options,
            number=number,
        )
        try:
            yield run
        finally:
            run.close()
            write_records(run)


def write_records(run: Run, *, goes_on: bool = False) -> None:
    """Write `outcomes.json`, `index.csv`, `report.html` and the table of volumes of a run.

    Args:
        run: The run.
        goes_on: It has not ended, and the records are written again.
    """
    ledger, out_dir = run.ledger, run.out_dir
    bound = settle_bound(ledger, run.number, run.model, out_dir, target=run.options.target)
    recall_intervals(ledger, bound, out_dir, run.delivery, run.options.retry)
    write_outcomes(ledger, run.number, out_dir / OUTCOMES_FILE, bound.quality_of)
    write_index(ledger, out_dir)
    write_run_page(
        ledger, out_dir, run.model, table=run.options.table, goes_on=goes_on, bound=bound
    )


def preview_archive(
    source: StudySource,
    *,
    model: Model,
    out_dir: Path,
    format: str = "nifti",
    tta: bool | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
    on_passed_over: Callable[[NotImage], None] | None = None,
) -> Iterator[ForeseenOutcome]:
    """Preview the outcomes of `segment_archive`; nothing is written.

    Args:
        source: Where the studies come from.
        model: The model that would be used, from `model_of`.
        out_dir: Where a ledger may be.
        format: `nifti`, `seg-nrrd`, `dicom-seg` or `rtstruct`.
        tta: Whether test-time augmentation would be used; None: as the model has it.
        options: Limits and manners of the run.
        on_passed_over: Called with each file that would be passed over, and why.

    Yields:
        An outcome for each study: as the ledger has it, `refused` by intake, or `pending`.
    """
    source = _fitted(source, out_dir, model)
    if isinstance(source, FolderSource):
        source = replace(source, explains=on_passed_over is not None)
    output_named(format, ARCHIVE_OUTPUTS)
    require_seg_form(options.seg, format, model.labels)
    settings = _settings(format, options.seg, tta=model.tta if tta is None else tta)
    path = out_dir / LEDGER_FILE
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(path, writer=False)) if path.exists() else None
        left = options.limit
        for study in source.studies():
            if isinstance(study, NotImage):
                if on_passed_over is not None:
                    on_passed_over(study)
                continue
            outcome = _foreseen(study, ledger, model, settings, resegment=options.resegment)
            yield ForeseenOutcome(**vars(outcome), place=study.place, because=study.because)
            if outcome.status == "pending" and left is not None:
                left -= 1
                if left == 0:
                    return


def _foreseen(
    study: Study, ledger: Ledger | None, model: Model, settings: str, *, resegment: bool
) -> StudyOutcome:
    """Return the state of a study, or the outcome that it would have."""
    key, package = key_of(study.content, model.hash, settings), model.hash
    if ledger is not None:
        key, package = key_in(ledger, study, model, settings, resegment=resegment)
        if ledger.has(key):
            return outcome_of(ledger.entry(key), fresh=False)
    fault = study.fault
    return StudyOutcome(
        key=key,
        study=study.name,
        status="refused" if fault else "pending",
        reason=f"{fault.reason}: {fault.message}" if fault else "",
        output=None,
        form=study.form,
        seconds=0.0,
        package=package,
    )


def _worker_pool(predictor: WorkerPool | Path | Sequence[Path]) -> WorkerPool:
    if isinstance(predictor, Path):
        return Workers((predictor,))
    return Workers(tuple(predictor)) if isinstance(predictor, Sequence) else predictor


def _fitted(source: StudySource, out_dir: Path, model: Model) -> StudySource:
    """The source for a model, without our own outputs if these are inside of it."""
    if not isinstance(source, FolderSource):
        return source
    outputs = (out_dir, out_dir / OUTPUTS, out_dir / PICTURES)  # it may be the archive itself
    return replace(source, skip=(*source.skip, *outputs), spatial_dims=model.spatial_dims)


def _identify(pool: AnyPredictor | WorkerPool) -> tuple[Model, bool]:
    """The model, and whether it is used with test-time augmentation."""
    if isinstance(pool, JoinedPredictor):
        return model_of(pool.packages, pool.joining), pool.tta
    if isinstance(pool, Predictor):
        return model_of(pool.packages), pool.tta
    packages, joining = read_packages(pool.packages), pool.options.get("joining")
    model, tta = model_of(packages, joining), pool.options.get("tta")
    if joining is not None:
        tta = joined_tta(packages, tta)
    return model, model.tta if tta is None else bool(tta)


def _engine(
    pool: AnyPredictor | WorkerPool, writing: Writing, results: Results, suspects: frozenset[str]
) -> StudyEngine:
    """Return the engine; studies that a killed run had begun go to a process of their own."""
    if isinstance(pool, AnyPredictor):
        here = ThreadEngine(pool, writing, results)
        if not suspects:
            return here
        return SuspectEngine(here, suspects, predictor=pool, writing=writing, results=results)
    return pool.engine(Setup(pool.packages, writing, pool.options), results)


def _settings(format_name: str, seg: SegForm, *, tta: bool) -> str:
    """Return the settings that change an output, besides content and package."""
    return " ".join([format_name, *seg.settings, *(["tta"] if tta else [])])


def _keep_private(ledger: Path) -> None:
    """Make a new ledger readable to its owner alone: it contains paths, which may name patients."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    ledger.touch(mode=0o600)
