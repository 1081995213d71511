"""Monthly dossier of a model, from its archive and the reviews of its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pipelines
from pipelines.registry.acceptance import Accepted, assessed
from pipelines.registry.acceptance_record import keep_dossier
from pipelines.registry.loading import load_models
from segmed.acceptance.archive_facts import facts_of_archive
from segmed.acceptance.criteria import read_criteria, require_known_structures
from segmed.acceptance.dossier import make_dossier
from segmed.acceptance.files import write_cases, write_dossier
from segmed.acceptance.monthly import judged_results, period_of, worst_judged
from segmed.archive.model import model_of
from segmed.archive.review.archive import ReviewArchive
from segmed.io.salt import read_salt, salt_path
from segmed.pictures.legend import Legend

MONTHLY_CRITERIA = Path(pipelines.__file__).with_name("configs") / "accept_monthly.yaml"
"""The default criteria of a month, used unless a file is given."""


@dataclass(frozen=True)
class MonthlyJob:
    """Request for a monthly dossier.

    Attributes:
        models: Model reference; several: an ensemble, as the archive run had it.
        archive: Output folder of the archive.
        out_dir: Folder of the dossier.
        month: Calendar month, such as `2026-11`; the last 31 days if not given.
        criteria: YAML of criteria; the default ones of a month if not given.
        keeps: Keep the dossier with the registered version.
        folder: Working folder, for the embedded registry.
    """

    models: tuple[str, ...]
    archive: Path
    out_dir: Path
    month: str | None = None
    criteria: Path | None = None
    keeps: bool = True
    folder: Path = Path()


def accept_month(job: MonthlyJob) -> Accepted:
    """Judge a model by a month of its archive, and write the dossier.

    Raises:
        UsageError: The criteria do not fit the model, or no result was judged.
    """
    criteria = read_criteria(job.criteria or MONTHLY_CRITERIA)
    period = period_of(job.month)
    resolved, packages = load_models(job.models)
    labels = packages[0].plan.labels
    require_known_structures(criteria, [label.name for label in labels])
    package = model_of(packages).hash
    archive = ReviewArchive(job.archive)
    judged = judged_results(archive, package, period, read_salt(salt_path()))
    dossier = make_dossier(
        assessed(resolved[0], packages, criteria.bound),
        judged.results,
        criteria,
        archive=facts_of_archive(job.archive, package, start=period.start, end=period.end),
        months=period.title,
        judged=judged.counts,
    )
    page, record = write_dossier(
        job.out_dir,
        dossier,
        overlays=worst_judged(dossier, judged, archive),
        legend=Legend({label.value: label.name for label in labels}),
    )
    names = write_cases(job.out_dir, judged.results)
    is_one = len(resolved) == 1 and job.keeps
    kept = keep_dossier(resolved[0], dossier, folder=job.folder) if is_one else None
    return Accepted(dossier, judged.results, page, record, names, kept)
