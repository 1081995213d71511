"""Packages that predict the quality of their segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segmed.errors import UsageError
from segmed.metrics.measures import FLAGGED, VOLUME
from segmed.metrics.training_norms import RESULTS, kept_values
from segmed.package.model_package import ModelPackage
from segmed.quality.fitting import QualityCase, fit_quality
from segmed.quality.identity import PREDICTED_QUALITY
from segmed.quality.model import Basis
from segmed.quality.package_form import quality_model_in
from segmed.quality.risk import DEFAULT_TARGET, RiskTarget


def with_quality(
    package: ModelPackage,
    cases: Mapping[str, QualityCase],
    *,
    basis: Basis,
    networks: int = 1,
    target: RiskTarget = DEFAULT_TARGET,
) -> ModelPackage:
    """A package that predicts the quality of its segmentations.

    Args:
        package: The package.
        cases: Cases that the network which segmented them had not seen, by id.
        basis: Relation of these segmentations to the package; see `QualityModel`.
        networks: Networks that were averaged for each of them.
        target: The promise about the unreviewed.

    Returns:
        The package; without a quality model if there are too few cases, whatever it had before. Its
        hash stays what it was, unless `segmed.quality.identity.quality_digest` says otherwise.
    """
    model = fit_quality([cases[name] for name in sorted(cases)], basis=basis, networks=networks)
    provenance: dict[str, Any] = dict(package.provenance)
    provenance.pop(PREDICTED_QUALITY, None)
    provenance.pop(RESULTS, None)
    if norms := result_norms(list(cases.values())):
        provenance[RESULTS] = norms
    if model is not None:
        provenance[PREDICTED_QUALITY] = model.with_target(target).model_dump(mode="json")
    return replace(package, provenance=provenance)


def result_norms(cases: Sequence[QualityCase]) -> dict[str, list[float]]:
    """Volumes and flags of a model's results on held-out cases, to compare an archive's with.

    Args:
        cases: The cases; none give no norms.
    """
    found = {
        f"{VOLUME}{label}": kept_values([case.truth[label].predicted_ml for case in cases])
        for label in (cases[0].truth if cases else ())
    }
    flags = [case.is_flagged for case in cases if case.is_flagged is not None]
    if flags and len(flags) == len(cases):
        found[FLAGGED] = kept_values([float(flag) for flag in flags])
    return found


def with_promise(package: ModelPackage, target: RiskTarget) -> ModelPackage:
    """The same package with another promise about the unreviewed.

    Raises:
        UsageError: It predicts no quality, so that nothing can be promised.
    """
    model = quality_model_in(package.provenance)
    if model is None:
        raise UsageError(
            "the package predicts no quality, so it can promise nothing: `segmed model calibrate` "
            "fits it on labelled cases that the model was not trained on"
        )
    stored = model.with_target(target).model_dump(mode="json")
    return replace(package, provenance={**package.provenance, PREDICTED_QUALITY: stored})
