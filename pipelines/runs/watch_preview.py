"""Foreseen fate of a dropped file or folder in a watch; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.registry.loading import resolve_model
from pipelines.runs.watching import PlannedRoute, WatchJob, planned_routes, seg_form
from segmed.archive import (
    FolderSource,
    Model,
    RunOptions,
    model_of,
    preview_archive,
    read_packages,
    read_rules,
)
from segmed.archive.naming import hash_name
from segmed.archive.study import NotImage, Study
from segmed.archive.writing import suffix_of
from segmed.errors import UsageError
from segmed.io.dicom.scan import scan
from segmed.io.dicom.series import SeriesAudit
from segmed.io.dicom.uid import short_hash
from segmed.package import ModelPackage
from segmed.package.series_rules import rules_in

ONE_FILE = "one file: intake judges its series when the study is complete"


@dataclass(frozen=True)
class ForeseenWork:
    """One unit of work that a rule would make of a study.

    Attributes:
        status: `pending` (would be segmented), `refused`, `done` (was before) or `failed`.
        reason: Why it is refused; of one file that its series is not judged.
        output: The output, relative to the folder of the watch; empty unless it would be made.
    """

    status: str
    reason: str
    output: str


@dataclass(frozen=True)
class RuleVerdict:
    """Verdict of one rule on a study.

    Attributes:
        rule: Name of the rule.
        takes: It takes a series of the study.
        why: Why each series is not taken, by number; empty for one that is.
        models: Models that would be used.
        format: Format of the outputs.
        send: Address that outputs would be sent to; empty without one.
        priority: `urgent`, `normal` or `off-peak`.
        when: When work would begin, in words.
        work: What would be made of it; empty if the rule does not take it.
    """

    rule: str
    takes: bool
    why: tuple[str, ...]
    models: tuple[str, ...]
    format: str
    send: str
    priority: str
    when: str
    work: tuple[ForeseenWork, ...] = ()


@dataclass(frozen=True)
class StudyForecast:
    """Forecast of one study.

    Attributes:
        study: Short hash of the study.
        series: Number of its series.
        instances: Number of its files.
        rules: Verdict of each rule.
    """

    study: str
    series: int
    instances: int
    rules: tuple[RuleVerdict, ...] = field(default=())

    @property
    def is_sound(self) -> bool:
        """True if a rule takes it and nothing of it would be refused."""
        work = [one for rule in self.rules for one in rule.work]
        return bool(work) and all(one.status in {"pending", "done"} for one in work)


def foresee(job: WatchJob, path: Path) -> list[StudyForecast]:
    """Preview the handling of a file or folder that arrives in a watch.

    Args:
        job: The watch.
        path: A DICOM file, or a folder with some.

    Raises:
        UsageError: There is no DICOM file, or the job cannot work.
    """
    planned = planned_routes(job)
    if not path.exists():
        raise UsageError(f"--try {path}: there is no such file or folder")
    studies: dict[tuple[str, str], list[SeriesAudit]] = {}
    for audit in scan(path):
        studies.setdefault((audit.patient_key, audit.study_uid), []).append(audit)
    if not studies:
        raise UsageError(f"--try {path}: no DICOM file, and a watch receives nothing else")
    models = {plan.name: _model(job, plan) for plan in planned}
    return [
        StudyForecast(
            study=short_hash(f"{patient} {study}"),
            series=len(audits),
            instances=sum(len(audit.files) + len(audit.copies) for audit in audits),
            rules=tuple(_verdict(job, plan, audits, path, *models[plan.name]) for plan in planned),
        )
        for (patient, study), audits in studies.items()
    ]


def _model(job: WatchJob, plan: PlannedRoute) -> tuple[Model, ModelPackage]:
    paths = tuple(resolve_model(name, folder=job.folder).path for name in plan.models)
    packages = read_packages(paths)
    return model_of(packages, plan.joining), packages[0]


def _verdict(
    job: WatchJob,
    plan: PlannedRoute,
    audits: Sequence[SeriesAudit],
    path: Path,
    model: Model,
    package: ModelPackage,
) -> RuleVerdict:
    rule = plan.rule
    why = [rule.query.misfit(audit) or "" for audit in audits]
    complete = rule.complete
    when = f"when nothing arrived for {complete.quiet_s:g} s"
    if rule.priority == "off-peak":
        when += f", between {plan.hours}"
    takes = not all(why)
    return RuleVerdict(
        rule=plan.name,
        takes=takes,
        why=tuple(why),
        models=plan.models,
        format=str(rule.format),
        send=rule.send or "",
        priority=rule.priority,
        when=when,
        work=tuple(_work(job, plan, audits, path, model, package)) if takes else (),
    )


def _work(
    job: WatchJob,
    plan: PlannedRoute,
    audits: Sequence[SeriesAudit],
    path: Path,
    model: Model,
    package: ModelPackage,
) -> Iterator[ForeseenWork]:
    """Units of work that a rule would make of a study."""
    if path.is_file():
        yield ForeseenWork("pending", ONE_FILE, "")
        return
    channels = plan.rule.channels
    source = FolderSource(
        path,
        package.plan.in_channels,
        read_rules(channels) if channels else rules_in(package),
        query=plan.rule.query,
    )
    found = preview_archive(
        _OneStudy(source, audits[0].patient_key, audits[0].study_uid),
        model=model,
        out_dir=plan.out_dir,
        format=str(plan.rule.format),
        tta=job.tta,
        options=RunOptions(seg=seg_form(plan.rule)),
    )
    for outcome in found:
        output = ""
        if outcome.status == "pending" and job.names != "source":
            name = hash_name(outcome.study, model.hash, suffix_of(str(plan.rule.format)))
            output = str((plan.out_dir / name).relative_to(job.out_dir))
        yield ForeseenWork(outcome.status, outcome.reason, output)


@dataclass(frozen=True)
class _OneStudy:
    """The units of work of one study of a folder."""

    source: FolderSource
    patient_key: str
    study_uid: str

    def studies(self) -> Iterator[Study | NotImage]:
        """The units of work."""
        for item in self.source.studies():
            if isinstance(item, Study) and item.audits:
                first: SeriesAudit = item.audits[0]
                if (first.patient_key, first.study_uid) == (self.patient_key, self.study_uid):
                    yield item

    def fetch(self, study: Study, folder: Path) -> Study:
        """The study itself."""
        return study
