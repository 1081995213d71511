"""One archive run, as the command line and the flows request it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.logs import log_outcome
from pipelines.registry.cache import converted_folder
from pipelines.registry.loading import resolve_model
from pipelines.registry.reference import Resolved
from pipelines.runs.several import Several, check_several, folder_names, joining_of
from segmed.archive import (
    FolderSource,
    RunOptions,
    StudyOutcome,
    StudySource,
    WorkerPool,
    Workers,
    model_of,
    preview_archive,
    read_packages,
    read_rules,
    segment_archive,
)
from segmed.archive.drift import read_drift
from segmed.archive.pacs.address import delivery_at, source_at
from segmed.archive.pacs.delivery import Delivery
from segmed.archive.pacs.remote import Query
from segmed.archive.pacs.reporting import ReportedDelivery
from segmed.archive.quality_bound import read_bound
from segmed.archive.query import SeriesQuery
from segmed.archive.study import ForeseenOutcome, NotImage
from segmed.archive.totals import OnTotal
from segmed.archive.volumes import check_kind
from segmed.errors import UsageError
from segmed.findings.sending import report_sender_at
from segmed.formats import ARCHIVE_OUTPUTS, SegForm, output_named, require_seg_form
from segmed.inference.joined import AnyPredictor, Joining, joined_tta, predictor_of
from segmed.inference.vocabulary import engine_named
from segmed.io.atomic import write_whole
from segmed.io.output_names import check_names
from segmed.package import ModelPackage
from segmed.package.series_rules import rules_in


@dataclass(frozen=True)
class ArchiveJob:
    """Request: inputs, model and output folder.

    Attributes:
        source: A folder, or the address of an archive.
        models: Model references.
        out_dir: Outputs, ledger and outcomes.
        format: `nifti`, `seg-nrrd`, `dicom-seg` or `rtstruct`.
        workers: Worker processes; 0 segments in this process.
        rules: YAML rules that assign series to channels.
        limit: Stop after this many studies.
        resegment: Also segment what another model has done.
        since: Only studies of this day or later (of a folder: files changed since).
        until: Only studies of this day or earlier (of a folder: files not changed later).
        modalities: Only DICOM series of these modalities.
        description: Only DICOM series with this expression in their description.
        body_part: Only DICOM series of this BodyPartExamined.
        not_segmented: Only DICOM studies without a segmentation by any program.
        send: Address that segmentations are sent to besides.
        tta: Average over mirror images; None: as the model has it.
        engine: One of `segmed.inference.vocabulary.ENGINES`.
        table: Kind of the volumes table, `csv` or `parquet`.
        names: `source` or `hash`; None: outputs of image files by source, of DICOM by hash.
        any_modality: Take DICOM images of another modality or body part than the model's, too.
        seg: Form of DICOM segmentations, one of `segmed.formats.SEG_KINDS`.
        all_frames: Also write their empty frames.
        reports: Reports written beside them, of `segmed.formats.REPORT_SUFFIXES`.
        send_reports: Addresses that HL7 and FHIR reports are sent to.
        folder: Working folder, for the embedded registry.
        devices: Devices that worker processes take in turn, such as `cuda:0` and `cuda:1`; without
            any, `workers` share the one that is there.
        cluster: Address of a Dask scheduler whose workers segment; paths are shared with them.
        several: Use of several models: `ensemble` averages their outputs; `each` gives an output of
            each, in a folder of its own below `out_dir`; `joined` gives one label map, in which the
            model named first wins.
        same_names: Rule of structures that have one name in two joined models: `refuse` (None) or
            `prefix`.
    """

    source: str
    models: tuple[str, ...]
    out_dir: Path
    format: str = "nifti"
    workers: int = 0
    rules: Path | None = None
    limit: int | None = None
    resegment: bool = False
    since: date | None = None
    until: date | None = None
    modalities: tuple[str, ...] = ()
    description: str | None = None
    body_part: str | None = None
    not_segmented: bool = False
    send: str | None = None
    tta: bool | None = None
    engine: str = "auto"
    table: str = "csv"
    names: str | None = None
    any_modality: bool = False
    seg: str = "binary"
    all_frames: bool = False
    reports: tuple[str, ...] = ()
    send_reports: tuple[str, ...] = ()
    folder: Path = Path()
    devices: tuple[str, ...] = ()
    cluster: str | None = None
    several: Several = "ensemble"
    same_names: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would only be found out during the run.

        Raises:
            UsageError: The output format, the engine, the form, the kind of names or of the table,
                or the use of several models is unknown, or a cluster shall use several models one
                after the other.
        """
        output_named(self.format, ARCHIVE_OUTPUTS)
        check_kind(self.table)
        engine_named(self.engine)
        check_names(self.names)
        require_seg_form(self.seg_form, self.format)
        check_several(self.several, self.models, self.seg_form, self.same_names)
        if self.cluster is not None and len(self.parts) > 1:
            raise UsageError("a cluster uses one model a run: start a run for each --model")

    @property
    def seg_form(self) -> SegForm:
        """Form of DICOM segmentations, and the reports beside them; those sent are written."""
        return seg_form_of(self.seg, self.all_frames, self.reports, self.send_reports)

    @property
    def joining(self) -> Joining | None:
        """The rule of a joined label map, if one is requested."""
        return joining_of(self.several, self.models, self.same_names)

    @property
    def parts(self) -> tuple[ArchiveJob, ...]:
        """Jobs with one output a study: this one, or one for each of several models."""
        if self.several != "each" or len(self.models) < 2:
            return (self,)
        return tuple(
            replace(self, models=(model,), out_dir=self.out_dir / name, several="ensemble")
            for model, name in folder_names(self.models).items()
        )

    @property
    def is_selective(self) -> bool:
        """True if the job names some of a source's studies, of which there may be none."""
        wishes = (self.since, self.until, self.modalities, self.description, self.body_part)
        return any(wishes) or self.not_segmented


def source_of(job: ArchiveJob, package: ModelPackage) -> Callable[[], StudySource]:
    """Return a function that opens the job's source, here or on another machine.

    Args:
        job: Its rules count before those that the package keeps.
        package: The model.

    Raises:
        UsageError: The file of rules cannot be used.
    """
    rules = read_rules(job.rules) if job.rules else rules_in(package)
    num_channels = package.plan.in_channels
    if "://" in job.source:
        query = Query(*_asked(job), since=job.since, until=job.until)
        return partial(source_at, job.source, query=query, num_channels=num_channels, rules=rules)
    since = datetime.combine(job.since, time.min) if job.since else None
    until = datetime.combine(job.until + timedelta(days=1), time.min) if job.until else None
    return partial(
        FolderSource,
        Path(job.source),
        num_channels,
        rules,
        since=since,
        skip=(job.out_dir.resolve(),),
        until=until,
        query=SeriesQuery(*_asked(job)),
        names=tuple(channel.name for channel in package.plan.channels),
    )


def _asked(job: ArchiveJob) -> tuple[tuple[str, ...], str | None, str | None, bool]:
    """Return the conditions on series: the fields of `SeriesQuery`."""
    return job.modalities, job.description, job.body_part, job.not_segmented


def run_archive(
    job: ArchiveJob,
    on_outcome: Callable[[StudyOutcome], None] | None = None,
    *,
    on_total: OnTotal | None = None,
) -> dict[str, Any]:
    """Segment the archive, by each model in turn where each gives an output.

    Args:
        job: What to do.
        on_outcome: Called with each outcome as it comes.
        on_total: Called with the number of studies, or an estimate of it, where one model is used.

    Returns:
        The models, with version and hash, every outcome, the drift watch's rows, and the promise
        about unreviewed results.
    """
    if job.parts == (job,):
        return _run_one(job, on_outcome, on_total)
    records = [_run_one(part, on_outcome) for part in job.parts]
    return {key: [one for record in records for one in record[key]] for key in records[0]}


def _run_one(
    job: ArchiveJob,
    on_outcome: Callable[[StudyOutcome], None] | None,
    on_total: OnTotal | None = None,
) -> dict[str, Any]:
    """`run_archive` by one model or ensemble; writes `model.json` beside `outcomes.json`."""
    if job.cluster is not None:  # paths are the same on every machine, its working folder is not
        place = job.source if "://" in job.source else str(Path(job.source).resolve())
        job = replace(job, source=place, out_dir=job.out_dir.resolve())
    resolved = [resolve_model(reference, folder=job.folder) for reference in job.models]
    paths = tuple(entry.path for entry in resolved)
    packages = read_packages(paths)
    opens = source_of(job, packages[0])
    source = opens()
    pool = _worker_pool(job, paths, packages, opens)
    outcomes = []
    write_models(resolved, job.out_dir, packages, job.joining)
    for outcome in segment_archive(
        source,
        predictor=pool,
        out_dir=job.out_dir,
        format=job.format,
        delivery=delivery_of(job.send, job.send_reports),
        options=RunOptions(
            limit=job.limit,
            resegment=job.resegment,
            table=job.table,
            names=check_names(job.names),
            seg=job.seg_form,
        ),
        on_total=on_total,
    ):
        outcomes.append(asdict(outcome))
        log_outcome(outcome)
        if on_outcome is not None:
            on_outcome(outcome)
    return {
        "models": [entry.record() for entry in resolved],
        "outcomes": outcomes,
        "drift": [asdict(row) for row in read_drift(job.out_dir)],
        "quality": read_bound(job.out_dir).sentence,
    }


def seg_form_of(
    seg: str, all_frames: bool, reports: Sequence[str], send_reports: Sequence[str]
) -> SegForm:
    """Form of DICOM segmentations, unchecked; reports that are sent are written, too."""
    sent = (report_sender_at(address).kind for address in send_reports)
    kinds = tuple(dict.fromkeys((*reports, *sent)))
    return SegForm(seg, all_frames, kinds)  # type: ignore[arg-type]  # see `require_seg_form`


def delivery_of(send: str | None, send_reports: Sequence[str]) -> Delivery | None:
    """Delivery of outputs and reports; None without an address.

    Raises:
        UsageError: An address cannot be used.
    """
    pacs = delivery_at(send) if send else None
    if not send_reports:
        return pacs
    return ReportedDelivery(pacs, senders=tuple(map(report_sender_at, send_reports)))


def _worker_pool(
    job: ArchiveJob,
    paths: tuple[Path, ...],
    packages: Sequence[ModelPackage],
    opens: Callable[[], StudySource],
) -> WorkerPool | AnyPredictor:
    options: dict[str, Any] = {"tta": job.tta, "engine": engine_named(job.engine)}
    if job.any_modality:
        options["any_modality"] = True
    if job.joining is not None:
        options["joining"] = job.joining
    if job.cluster is not None:
        from pipelines.runs.cluster import Cluster, shared_packages  # noqa: PLC0415 - needs Dask

        shared = shared_packages(paths, [package.hash for package in packages], shared_folder(job))
        is_remote = "://" in job.source
        options["cache_dir"] = shared_folder(job) / "converted"
        folders = (job.out_dir, *(() if is_remote else (Path(job.source),)))
        return Cluster(
            shared,
            options,
            opens if is_remote else None,
            max(1, job.workers),
            folders=folders,
        )
    options["cache_dir"] = converted_folder()
    if job.workers or job.devices:
        number = job.workers or len(job.devices)
        return Workers(paths, number, options, devices=job.devices)
    return predictor_of(packages, **options)


def shared_folder(job: ArchiveJob) -> Path:
    """Return the folder in which the machines of a cluster find the models of a run."""
    return job.out_dir.resolve() / ".models"


def preview(
    job: ArchiveJob, on_passed_over: Callable[[NotImage], None] | None = None
) -> Iterator[ForeseenOutcome]:
    """Yield the outcome that `run_archive` would give each study, and write nothing.

    Args:
        job: What to segment.
        on_passed_over: Called with each file that would be passed over, and why.
    """
    for part in job.parts:
        yield from _preview_one(part, on_passed_over if part is job.parts[0] else None)


def _preview_one(
    job: ArchiveJob, on_passed_over: Callable[[NotImage], None] | None
) -> Iterator[ForeseenOutcome]:
    """Yield the outcomes of a job with one output a study."""
    resolved = [resolve_model(reference, folder=job.folder) for reference in job.models]
    packages = read_packages(tuple(entry.path for entry in resolved))
    source = source_of(job, packages[0])()
    yield from preview_archive(
        source,
        model=model_of(packages, job.joining),
        out_dir=job.out_dir,
        format=job.format,
        tta=job.tta if job.joining is None else joined_tta(packages, job.tta),
        options=RunOptions(limit=job.limit, resegment=job.resegment, seg=job.seg_form),
        on_passed_over=on_passed_over,
    )


def write_models(
    resolved: Sequence[Resolved],
    out_dir: Path,
    packages: Sequence[ModelPackage],
    joining: Joining | None,
) -> None:
    """Keep a record of every model that outputs here may come from, by hash.

    Args:
        resolved: The models of a run.
        out_dir: Its output folder.
        packages: Their packages.
        joining: The rule of a joined label map, whose models are listed in their priority.
    """
    path = out_dir / "model.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known |= {entry.hash: entry.record() for entry in resolved}
    if joining is not None:
        whole = model_of(packages, joining).hash
        name = " > ".join(entry.reference for entry in resolved)
        known[whole] = {
            "model": name,
            "name": None,
            "version": None,
            "hash": whole,
            "priority": [entry.hash for entry in resolved],
        }
    write_whole(path, json.dumps(known, indent=2))
