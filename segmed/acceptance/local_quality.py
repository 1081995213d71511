"""Predicted quality of a package, fitted on labelled cases that none of its networks has seen.

On the cases of a cross-validation all networks of an ensemble but one were trained, so their
agreement there is not that on a new case. Cases given later have no such fault: the agreement of
all networks can be used, and the guarantee is for this very package. Packages that were imported or
joined get predicted quality in no other way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from segmed.errors import UsageError
from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.manifest import Case, Manifest
from segmed.package import ModelPackage
from segmed.package.predicted_quality import with_quality
from segmed.package.training_cases import image_mark, require_unseen
from segmed.quality.fitting import FEWEST_PATIENTS
from segmed.quality.risk import DEFAULT_TARGET, RiskTarget

FITTED_ON = "quality_images"
"""Key of a package's provenance: marks of the images that its predicted quality was fitted on."""

Progress = Callable[[int, int], None]


def fit_locally(
    package: ModelPackage,
    manifest: Manifest,
    cases: Sequence[Case],
    *,
    target: RiskTarget = DEFAULT_TARGET,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> ModelPackage:
    """Fit and calibrate the predicted quality of a package on labelled cases.

    Args:
        package: The package; an int8 network of an ensemble is left out, as it shows no members.
        manifest: The image set of the cases.
        cases: Cases with labels.
        target: The promise about unreviewed results.
        device: `auto`, `cpu` or `cuda`.
        cache_dir: Folder that keeps converted models.
        progress: Called with cases done and cases in all.

    Returns:
        The package with its quality model, and with another hash.

    Raises:
        UsageError: The package was trained on an image of them, there are too few patients, or the
            manifest has other channels or labels than the package.
    """
    marks = {case.id: image_mark(manifest, case) for case in cases}
    require_unseen([package], manifest, cases)
    patients = len({case.group for case in cases})
    if patients < FEWEST_PATIENTS:
        raise UsageError(
            f"{patients} patients are too few to fit predicted quality: {FEWEST_PATIENTS} at least "
            "give a prediction, 18 an interval, about 130 a promise of 5 % at 95 % confidence"
        )
    provenance = {**package.provenance, FITTED_ON: sorted(marks.values())}
    int8 = package.accepted_int8 if package.members == 1 else None
    whole = replace(package, provenance=provenance, int8=int8)
    predictor = Predictor(whole, device=device, cache_dir=cache_dir)
    with tempfile.TemporaryDirectory(prefix="segmed-calibrate-") as scratch:
        found = score_cases(
            predictor,
            manifest,
            cases,
            out_dir=Path(scratch),
            progress=progress,
            with_features=True,
        ).quality_cases
    return with_quality(whole, found, basis="local", networks=package.members, target=target)
