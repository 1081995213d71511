"""Monthly flow: the dossier of the model in use, from its archive and its reviews."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from pipelines.registry.acceptance import Accepted
from pipelines.registry.monthly import MonthlyJob, accept_month
from pipelines.runs.notices import check_notices, notice_of_failure, send_notices
from segmed.acceptance.monthly import NothingJudgedError

ACCEPTANCE_KEY = "monthly-acceptance"


def name_of_month() -> str:
    """Name of a flow run, such as `monthly acceptance 2026-11-01`."""
    return f"monthly acceptance {_day()}"


def _day() -> str:
    """Day for which this run was scheduled; a continued run keeps it."""
    return f"{flow_run.scheduled_start_time or datetime.now(UTC):%Y-%m-%d}"


@flow(name="monthly", flow_run_name=name_of_month)
def monthly(job: MonthlyJob, notify: tuple[str, ...] = ()) -> bool | None:
    """Judge the model by the last month of its archive.

    Args:
        job: What to judge; the dossier goes into a folder of the day.
        notify: Notification blocks, or addresses, that receive the outcome.

    Returns:
        Whether the model fulfils the criteria; None where no result was judged.
    """
    with notice_of_failure(notify, "monthly acceptance"):
        check_notices(notify)
        found = judge_month(replace(job, out_dir=job.out_dir / _day()))
        subject, body = told(found)
        create_markdown_artifact(f"## {subject}\n\n{body}\n", key=ACCEPTANCE_KEY)
        send_notices(notify, f"segmed: {subject}", body)
    return found.dossier.is_accepted if isinstance(found, Accepted) else None


@task(cache_policy=NO_CACHE, persist_result=False)
def judge_month(job: MonthlyJob) -> Accepted | str:
    """The dossier; or why there is none, where no result was judged in the month."""
    try:
        return accept_month(job)
    except NothingJudgedError as error:
        return str(error)


def told(found: Accepted | str) -> tuple[str, str]:
    """Subject and body of the notice, without names of cases or files."""
    if isinstance(found, str):
        return "monthly acceptance: no dossier", f"- {found}"
    dossier = found.dossier
    state = "accepted" if dossier.is_accepted else "not accepted"
    subject = f"monthly acceptance: {dossier.model.name or dossier.model.title} {state}"
    lines = [*dossier.reasons, *dossier.findings, dossier.bound.sentence]
    return subject, "\n".join(f"- {line}" for line in lines)
