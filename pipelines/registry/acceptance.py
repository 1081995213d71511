"""Acceptance of a model at a site: score the local cases, judge, write and keep the dossier."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pipelines
from pipelines.registry.acceptance_record import keep_dossier
from pipelines.registry.cache import converted_folder
from pipelines.registry.loading import load_models
from pipelines.registry.reference import Resolved
from pipelines.tracking.tags import HELD_OUT
from segmed.acceptance.archive_facts import facts_of_archive
from segmed.acceptance.criteria import BoundTerms, read_criteria, require_known_structures
from segmed.acceptance.dossier import AssessedModel, Dossier, make_dossier
from segmed.acceptance.evidence import (
    RivalResults,
    make_evidence,
    read_keys,
    sign,
    write_evidence,
)
from segmed.acceptance.facts import values_of
from segmed.acceptance.files import SEGMENTATIONS, private_folder, write_cases, write_dossier
from segmed.acceptance.keys import study_key_path
from segmed.acceptance.page import worst_cases
from segmed.acceptance.predicted import promise_of, without_fitted
from segmed.acceptance.scoring import LocalResults, labelled, score_site
from segmed.archive.model import model_of
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.io.salt import read_salt, salt_path
from segmed.manifest import Case, Manifest, read_manifest
from segmed.package import ModelPackage
from segmed.package.training_cases import require_unseen, unseen_cases
from segmed.plan.agreement import channel_order, require_known_labels
from segmed.report.legends import legend_of_set

DEFAULT_CRITERIA = Path(pipelines.__file__).with_name("configs") / "accept.yaml"
"""The default criteria, used unless a file is given."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class AcceptJob:
    """Request for a dossier.

    Attributes:
        model: Model reference.
        cases: Manifest of the local cases.
        out_dir: Folder of the dossier.
        archive: Output folder of an archive that the model segmented.
        criteria: YAML of criteria; the default ones if not given.
        fold: Score the cases of this fold alone.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        keeps: Keep the dossier with the registered version.
        against: Reference of a model that the evidence compares with, such as the champion.
        export: File of the signed evidence; none is written if not given.
        study_key: File of the key that the sites of a study share; the default one if not given.
        site_key: File of the key that signs; the default one if not given.
        folder: Working folder, for the embedded registry.
    """

    model: str
    cases: Path
    out_dir: Path
    archive: Path | None = None
    criteria: Path | None = None
    fold: int | None = None
    device: str = "auto"
    keeps: bool = True
    against: str | None = None
    export: Path | None = None
    study_key: Path | None = None
    site_key: Path | None = None
    folder: Path = Path()

    @property
    def study_key_path(self) -> Path:
        """File of the study's key."""
        return self.study_key or study_key_path()


@dataclass(frozen=True)
class Accepted:
    """Outcome of an acceptance.

    Attributes:
        dossier: The dossier.
        results: What it was made of; it names cases.
        page: The page.
        record: The record.
        names: The private list of which number is which case.
        kept: Artifact folder at the registered version; None where it is not kept.
        exported: The signed evidence, if it was asked for.
        site: Name of the site that signed it.
    """

    dossier: Dossier
    results: LocalResults
    page: Path
    record: Path
    names: Path
    kept: str | None = None
    exported: Path | None = None
    site: str | None = None


def accept_site(job: AcceptJob, progress: Progress | None = None) -> Accepted:
    """Score a model on local cases, judge it by the criteria and write the dossier.

    Args:
        job: The request.
        progress: Called with cases done and cases in all.

    Raises:
        UsageError: Criteria or manifest do not fit the model, or a case was trained on.
    """
    criteria = read_criteria(job.criteria or DEFAULT_CRITERIA)
    (resolved,), packages = load_models([job.model])
    require_known_structures(criteria, [label.name for label in packages[0].plan.labels])
    manifest = read_manifest(job.cases)
    require_contract(packages, manifest)
    cases = cases_of(packages, manifest, job.fold)
    if not cases:
        raise UsageError("no labelled case to score: give a manifest with labels")
    archive = (
        None if job.archive is None else facts_of_archive(job.archive, model_of(packages).hash)
    )
    rival = (
        None
        if job.against is None
        else rival_packages(job.against, packages, manifest, cases, job.fold)
    )
    # Keys that are missing are drawn: only where nothing else is wrong.
    keys = None if job.export is None else read_keys(job.study_key, job.site_key)
    predictor = Predictor(packages, device=job.device, cache_dir=converted_folder())
    maps = private_folder(job.out_dir) / SEGMENTATIONS
    results = score_site(predictor, manifest, cases, out_dir=maps, progress=progress)
    results.predicted = without_fitted(results.predicted, packages[0], manifest, cases)
    salt = read_salt(salt_path())
    results.values.update({case.id: values_of(manifest, case, salt) for case in cases})
    dossier = make_dossier(
        assessed(resolved, packages, criteria.bound), results, criteria, archive=archive
    )
    signed = None
    if keys is not None:
        other = None if rival is None else score_rival(job, rival, manifest, cases, progress)
        signed = sign(make_evidence(dossier, results, keys.study, other), keys.site)
    found = finish(job, resolved, dossier, results, manifest)
    if signed is None or job.export is None:
        return found
    return replace(found, exported=write_evidence(job.export, signed), site=signed.site)


def require_contract(packages: Sequence[ModelPackage], manifest: Manifest) -> None:
    """Require that a manifest has the labels and channels of a model, before anything is written.

    Raises:
        UsageError: It has others.
    """
    for package in packages:
        require_known_labels(package.plan, manifest)
        channel_order([channel.name for channel in package.plan.channels], manifest)


def rival_packages(
    reference: str,
    judged: Sequence[ModelPackage],
    manifest: Manifest,
    cases: Sequence[Case],
    fold: int | None = None,
) -> tuple[ModelPackage, ...]:
    """Packages of the model that the evidence compares with.

    Args:
        reference: Model reference.
        judged: Packages of the model that is judged.
        manifest: The image set of the cases.
        cases: The cases.
        fold: Fold that they are of, where one is asked for.

    Raises:
        UsageError: It was trained on one of the cases, or segments other structures.
    """
    _, packages = load_models([reference])
    if model_of(packages).hash == model_of(judged).hash:
        raise UsageError(
            f"--against {reference} is the model itself: give another one, such as the champion"
        )
    own, other = ({label.name for label in one[0].plan.labels} for one in (judged, packages))
    if own != other:
        raise UsageError(
            f"--against {reference} segments {', '.join(sorted(other))}, the model "
            f"{', '.join(sorted(own))}: compare models of the same structures"
        )
    require_contract(packages, manifest)
    unseen_cases(packages, manifest, cases=cases)
    if fold is None:
        require_unseen(packages, manifest, cases)
    return tuple(packages)


def score_rival(
    job: AcceptJob,
    packages: Sequence[ModelPackage],
    manifest: Manifest,
    cases: Sequence[Case],
    progress: Progress | None,
) -> RivalResults:
    """Score the model that the evidence compares with on the same cases."""
    predictor = Predictor(packages, device=job.device, cache_dir=converted_folder())
    with tempfile.TemporaryDirectory(prefix="segmed-against-") as scratch:
        results = score_site(predictor, manifest, cases, out_dir=Path(scratch), progress=progress)
    return RivalResults(model_of(packages).hash, results)


def cases_of(
    packages: Sequence[ModelPackage], manifest: Manifest, fold: int | None
) -> tuple[Case, ...]:
    """Labelled cases of a manifest, or of one fold, none of which the model was trained on."""
    if fold is not None:
        return unseen_cases(packages, manifest, fold=fold)
    cases = unseen_cases(packages, manifest, cases=labelled((*manifest.training, *manifest.test)))
    require_unseen(packages, manifest, cases)
    return cases


def assessed(
    resolved: Resolved, packages: Sequence[ModelPackage], terms: BoundTerms
) -> AssessedModel:
    """The model of a dossier, with what its package keeps.

    Args:
        resolved: The model.
        packages: Its packages.
        terms: Terms of the bound, at which the package's promise is tested.
    """
    model, promise = model_of(packages), promise_of(packages, terms)
    return AssessedModel(
        hash=model.hash,
        title=model.name,
        name=resolved.name,
        version=resolved.version,
        card=packages[0].provenance.get(HELD_OUT),
        norms=model.norms,
        parameters=sum(value.numel() for package in packages for value in package.state.values()),
        threshold=None if promise is None else promise.threshold,
        review=0.0 if promise is None else promise.review,
        risk=None if promise is None else promise.risk,
    )


def finish(
    job: AcceptJob,
    resolved: Resolved,
    dossier: Dossier,
    results: LocalResults,
    manifest: Manifest,
) -> Accepted:
    """Write the files of a dossier, and keep it with the registered version."""
    page, record = write_dossier(
        job.out_dir,
        dossier,
        overlays=worst_cases(dossier, results, manifest),
        legend=legend_of_set(manifest),
    )
    names = write_cases(job.out_dir, results)
    kept = keep_dossier(resolved, dossier, folder=job.folder) if job.keeps else None
    return Accepted(dossier, results, page, record, names, kept)
