"""A watch, as the command line and the flows request it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.registry.cache import converted_folder
from pipelines.registry.loading import resolve_model
from pipelines.registry.reference import Resolved
from pipelines.runs.archiving import delivery_of, seg_form_of, write_models
from pipelines.runs.several import Several, check_several, folder_names, joining_of
from segmed.archive import FolderSource, RunOptions, StudySource, Workers, read_packages, read_rules
from segmed.archive.pacs.dicomweb import DicomWeb, DicomWebSource
from segmed.archive.pacs.orthanc import OrthancServer
from segmed.archive.pacs.remote import Query
from segmed.archive.segment import open_run
from segmed.archive.watch.address import NodeAddress, watched_address
from segmed.archive.watch.arrival import Completeness, Feed
from segmed.archive.watch.inbox import Inbox
from segmed.archive.watch.loop import Watch, WatchOptions
from segmed.archive.watch.node import inbox_of, receiving, require_free_port
from segmed.archive.watch.route import NIGHT, Hours, Route
from segmed.archive.watch.rules import FEED_FOLDER, WatchRule, WatchRules, read_watch_rules
from segmed.archive.watch.server import DatedListing, OrthancListing, ServerFeed
from segmed.archive.writing import suffix_of
from segmed.errors import UsageError
from segmed.formats import SegForm, require_seg_form
from segmed.inference.joined import AnyPredictor, Joining, predictor_of
from segmed.inference.vocabulary import engine_named
from segmed.io.output_names import check_names
from segmed.package import ModelPackage
from segmed.package.series_rules import rules_in

Address = NodeAddress | OrthancServer | DicomWeb
"""Place that studies come from."""

LoadedModels = tuple[tuple[str, ...], Joining | None]
"""Model references of a route and their rule of a joined label map: routes may share a model."""

RouteModels = tuple[list[Resolved], tuple[ModelPackage, ...]]
"""Models of a route and their packages."""

DAY_S = 86400.0
ONLY_RULE = "watch"
"""Name of the route of a watch without a file of rules."""


@dataclass(frozen=True)
class WatchJob:
    """Request: address, models, rules and output folder.

    Attributes:
        address: Where our DICOM node listens, or the server that is watched.
        out_dir: Received images, queue and outputs; with rules a folder for each below.
        models: Model references, for rules that name none.
        several: Use of several of these models: `ensemble`, `each` or `joined`.
        same_names: Rule of structures that have one name in two joined models.
        format: Format of the outputs, for rules that name none.
        seg: Form of DICOM segmentations, for rules that name none.
        all_frames: Also write their empty frames, for rules that do not say.
        reports: Reports beside each DICOM segmentation, for rules that name none.
        send_reports: Addresses that reports are sent to, for rules that name none.
        send: Address that outputs are sent to, for rules that name none.
        rules: File of the rules; None for one rule that takes every image.
        quiet_s: Without rules: a study is complete when nothing has arrived for so long, in s.
        tta: Average over mirror images; None: as the model has it.
        engine: One of `segmed.inference.vocabulary.ENGINES`.
        workers: Worker processes for each model; 0 segments in this process.
        devices: Devices that worker processes take in turn.
        any_modality: Take images of another modality or body part than the model's, too.
        names: `source` or `hash`; None: by hash.
        retry_s: Time after which a failed study is tried again, in s.
        poll_s: Time between two questions to a server, in s.
        days: Days of a server that are watched, by study date; of an Orthanc, days whose changes
            are taken up at the first start.
        keep_days: Days after which the images of settled studies are removed; None keeps them.
        folder: Working folder, for the embedded registry.
    """

    address: str
    out_dir: Path
    models: tuple[str, ...] = ()
    several: Several = "ensemble"
    same_names: str | None = None
    format: str = "nifti"
    seg: str = "binary"
    all_frames: bool = False
    reports: tuple[str, ...] = ()
    send_reports: tuple[str, ...] = ()
    send: str | None = None
    rules: Path | None = None
    quiet_s: float | None = None
    tta: bool | None = None
    engine: str = "auto"
    workers: int = 0
    devices: tuple[str, ...] = ()
    any_modality: bool = False
    names: str | None = None
    retry_s: float = 300.0
    poll_s: float = 10.0
    days: int = 2
    keep_days: float | None = None
    folder: Path = Path()


def rules_of_job(job: WatchJob) -> WatchRules:
    """The rules of a job, each with models, format and address.

    Raises:
        UsageError: A rule has no model, or the file of rules is invalid.
    """
    if job.rules is None:
        complete = Completeness() if job.quiet_s is None else Completeness(quiet_s=job.quiet_s)
        found = WatchRules(rules=(WatchRule(name=ONLY_RULE, complete=complete),))
    else:
        found = read_watch_rules(job.rules)
        if job.quiet_s is not None:
            raise UsageError("--quiet and --rules: write quiet_s below complete in the rules")
    rules = []
    for rule in found.rules:
        models = rule.models or job.models
        if not models:
            raise UsageError(
                f"rule {rule.name} names no model: add models to it, or give --model"
                if job.rules
                else "no model: give --model PACKAGE or models:/NAME@ALIAS, or --rules"
            )
        format_name = rule.format or job.format
        suffix_of(format_name)
        several, same = (
            (rule.several, rule.same_names) if rule.models else (job.several, job.same_names)
        )
        given: dict[str, object] = {
            "models": models, "format": format_name, "several": several, "same_names": same,
        }  # fmt: skip
        given["send"] = rule.send or job.send
        own = rule.model_copy(update={**given, **_dicom_options(job, rule, format_name)})
        require_seg_form(seg_form(own), format_name)
        check_several(several, models, seg_form(own), same)
        rules.append(own)
    return found.model_copy(update={"rules": tuple(rules)})


def _dicom_options(job: WatchJob, rule: WatchRule, format_name: str) -> dict[str, object]:
    """Options of DICOM outputs: those of the rule, else those of the command line.

    Of the command line they do not apply to rules with another format.
    """
    names = ("seg", "all_frames", "reports", "send_reports")
    applies = format_name == "dicom-seg" or job.rules is None
    given = {name: getattr(job, name) for name in names} if applies else _NO_DICOM
    own = {name: value for name in names if (value := getattr(rule, name)) is not None}
    return {**given, **own}


_NO_DICOM: dict[str, object] = {
    "seg": "binary", "all_frames": False, "reports": (), "send_reports": (),
}  # fmt: skip


def seg_form(rule: WatchRule) -> SegForm:
    """Form of the segmentations of a rule from `rules_of_job`."""
    return seg_form_of(
        str(rule.seg), bool(rule.all_frames), rule.reports or (), rule.send_reports or ()
    )


@dataclass(frozen=True)
class PlannedRoute:
    """A rule with the models of one output.

    Attributes:
        rule: The rule, with models, format and address.
        name: Name in lists.
        models: Model references; several are an ensemble.
        out_dir: Folder of its ledger and outputs.
        hours: Off-peak hours.
    """

    rule: WatchRule
    name: str
    models: tuple[str, ...]
    out_dir: Path
    hours: Hours = NIGHT

    @property
    def joining(self) -> Joining | None:
        """The rule of a joined label map, if the rule requests one."""
        return joining_of(self.rule.several, self.models, self.rule.same_names)


def planned_routes(job: WatchJob) -> list[PlannedRoute]:
    """The routes of a job: one for each rule, and for each model where each gives an output.

    Raises:
        UsageError: The rules are invalid, or an address cannot be used.
    """
    found = rules_of_job(job)
    planned = []
    for rule in found.rules:
        folder = job.out_dir if job.rules is None else job.out_dir / rule.name
        name = rule.name
        delivery_of(rule.send, rule.send_reports or ())
        if rule.several != "each" or len(rule.models) == 1:
            planned.append(PlannedRoute(rule, name, rule.models, folder, found.hours))
            continue
        for model, own in folder_names(rule.models).items():
            route = PlannedRoute(rule, f"{name}/{own}", (model,), folder / own, found.hours)
            planned.append(route)
    return planned


@contextmanager
def open_watch(
    job: WatchJob, *, place: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[tuple[Watch, str]]:
    """A watch, its models loaded and its node listening.

    Args:
        job: What to watch, and what to do.
        place: Entered while there is work, such as a reservation of the GPU.

    Yields:
        The watch, and its address in words.

    Raises:
        UsageError: An option cannot work, or another run writes into an output folder.
        PackageError: A package is damaged.
    """
    engine_named(job.engine)
    place_of_studies = watched_address(job.address)
    planned = planned_routes(job)
    if isinstance(place_of_studies, NodeAddress):
        require_free_port(place_of_studies.host, place_of_studies.port)
    resolved = [_resolved(job, plan) for plan in planned]  # all, before anything is written
    with ExitStack() as stack:
        opened = partial(_source, job, place_of_studies)
        predictors: dict[LoadedModels, AnyPredictor | Workers] = {}
        routes = [
            _route(job, plan, models, opened, predictors, stack)
            for plan, models in zip(planned, resolved, strict=True)
        ]
        feed, where = _feed(job, place_of_studies, stack)  # no other watch: the ledgers are ours
        keep_s = None if job.keep_days is None else job.keep_days * DAY_S
        options = WatchOptions(retry_s=job.retry_s, keep_s=keep_s, place=place)
        yield Watch(feed, routes, job.out_dir, options), where


def _feed(job: WatchJob, place: Address, stack: ExitStack) -> tuple[Feed, str]:
    """The feed of an address, and the address in words."""
    if isinstance(place, NodeAddress):
        inbox = Inbox(inbox_of(job.out_dir))
        port = stack.enter_context(
            receiving(
                inbox, title=place.title, host=place.host, port=place.port, callers=place.callers
            )
        )
        return inbox, f"{place.title}@{place.host}:{port}"
    folder = job.out_dir / FEED_FOLDER
    if isinstance(place, OrthancServer):
        source, where = DicomWebSource(place.service), place.root
        changes = OrthancListing(place, folder, job.days)
        return ServerFeed(source, changes, folder, poll_s=job.poll_s), where
    source = DicomWebSource(place)
    return ServerFeed(source, DatedListing(source, job.days), folder, poll_s=job.poll_s), place.url


def _resolved(job: WatchJob, plan: PlannedRoute) -> RouteModels:
    """The models of a route with their packages."""
    entries = [resolve_model(reference, folder=job.folder) for reference in plan.models]
    return entries, read_packages(tuple(entry.path for entry in entries))


def _route(
    job: WatchJob,
    plan: PlannedRoute,
    models: RouteModels,
    opened: Callable[[PlannedRoute, Sequence[ModelPackage]], StudySource],
    predictors: dict[LoadedModels, AnyPredictor | Workers],
    stack: ExitStack,
) -> Route:
    """A route with its run open; models that several routes use are loaded once."""
    resolved, packages = models
    paths = tuple(entry.path for entry in resolved)
    used = plan.models, plan.joining
    if used not in predictors:
        predictors[used] = _predictor(job, paths, packages, plan.joining)
    write_models(resolved, plan.out_dir, packages, plan.joining)
    run = stack.enter_context(
        open_run(
            opened(plan, packages),
            predictor=predictors[used],
            out_dir=plan.out_dir,
            format=str(plan.rule.format),
            delivery=delivery_of(plan.rule.send, plan.rule.send_reports or ()),
            options=RunOptions(
                names=check_names(job.names),
                most_unanswered=float("inf"),
                seg=seg_form(plan.rule),
            ),
        )
    )
    rule = plan.rule
    return Route(plan.name, run, rule.query, rule.complete, rule.priority, plan.hours)


def _source(
    job: WatchJob,
    place: Address,
    plan: PlannedRoute,
    packages: Sequence[ModelPackage],
) -> StudySource:
    """Source of the run of a route."""
    first, channels = packages[0], plan.rule.channels
    rules = read_rules(channels) if channels else rules_in(first)
    query, num_channels = plan.rule.query, first.plan.in_channels
    if isinstance(place, NodeAddress):
        return FolderSource(inbox_of(job.out_dir), num_channels, rules, query=query)
    conditions = Query(query.modalities, query.description, query.body_part)
    service = place.service if isinstance(place, OrthancServer) else place
    return DicomWebSource(service, conditions, num_channels, rules)


def _predictor(
    job: WatchJob,
    paths: tuple[Path, ...],
    packages: Sequence[ModelPackage],
    joining: Joining | None,
) -> AnyPredictor | Workers:
    options: dict[str, Any] = {"tta": job.tta, "engine": engine_named(job.engine)}
    if job.any_modality:
        options["any_modality"] = True
    if joining is not None:
        options["joining"] = joining
    options["cache_dir"] = converted_folder()
    if job.workers or job.devices:
        return Workers(paths, job.workers or len(job.devices), options, devices=job.devices)
    return predictor_of(packages, **options)
