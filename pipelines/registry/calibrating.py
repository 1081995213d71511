"""Predicted quality of any reference, fitted on labelled cases; in place or as a new package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.registry.acceptance import Progress, cases_of
from pipelines.registry.cache import converted_folder
from pipelines.registry.faster import Place
from segmed.acceptance.local_quality import fit_locally
from segmed.errors import UsageError
from segmed.manifest import read_manifest
from segmed.package.training_cases import unseen_cases
from segmed.quality.package_form import quality_model_in
from segmed.quality.risk import RiskTarget
from segmed.quality.statements import model_in_words


@dataclass(frozen=True)
class CalibrationJob:
    """Request for predicted quality.

    Attributes:
        place: The model, and the place of the result.
        cases: Manifest of the labelled cases.
        target: The promise about unreviewed results.
        only_test: Use its test cases alone.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    place: Place
    cases: Path
    target: RiskTarget
    only_test: bool = False
    device: str = "auto"


def calibrate_model(job: CalibrationJob, progress: Progress | None = None) -> dict[str, Any]:
    """Fit the predicted quality of a model and keep the package.

    Args:
        job: The request.
        progress: Called with cases done and cases in all.

    Returns:
        The outcome as JSON values.

    Raises:
        UsageError: The reference names nothing, there is no place, or the cases cannot be used.
        PackageError: The package is damaged.
    """
    job.place.require_clear()
    package, manifest = job.place.load(), read_manifest(job.cases)
    if job.only_test:
        labelled = [case for case in manifest.test if case.label is not None]
        if not labelled:
            raise UsageError(f"{job.cases} has no test case with a label")
        cases = unseen_cases([package], manifest, cases=labelled)
    else:
        cases = cases_of([package], manifest, None)
    made = fit_locally(
        package,
        manifest,
        cases,
        target=job.target,
        device=job.device,
        cache_dir=converted_folder(),
        progress=progress,
    )
    model = quality_model_in(made.provenance)
    if model is None:
        raise UsageError("no structure of the model was scored in enough cases to fit a prediction")
    bound = model.bound()
    return {
        "model": job.place.keep(made),
        "hash": made.hash,
        "hash_before": package.hash,
        "cases": len(cases),
        "fitted": model.fitted,
        "calibrated": model.calibrated,
        "features": list(model.features),
        "promise": bound.target.model_dump(),
        "promised": bound.is_promised,
        "threshold": bound.threshold,
        "upper": bound.upper,
        "lost_int8": made.int8 is None and package.accepted_int8 is not None,
        "sentence": model_in_words(model),
    }
