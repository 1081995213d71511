"""Predicted quality in words, and intervals of volumes for reports such as DICOM SR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segmed.findings.record import VolumeInterval
from segmed.quality.case_features import AGREEMENT
from segmed.quality.model import QualityModel

BASES = {
    "held_out": "the cases that the training held out",
    "out_of_fold": "cases of other folds than each network's own",
    "local": "cases given after the training",
}
"""Origin of the cases that a quality model was fitted on."""


def model_in_words(model: QualityModel) -> str:
    """Origin of predicted quality, and what it promises."""
    agreement = ", with the agreement of its networks" if AGREEMENT in model.features else ""
    return (
        f"fitted on {model.fitted} and calibrated on {model.calibrated} patients, "
        f"{BASES[model.basis]}{agreement}; {model.bound().sentence}"
    )


def volume_intervals(quality: Mapping[str, Any] | None) -> dict[str, VolumeInterval]:
    """Intervals by structure; structures without an earned interval are left out.

    Args:
        quality: `CaseQuality.record()`, as in the measures of an archived study under `quality`,
            or None where the model predicts none.
    """
    if quality is None:
        return {}
    return {
        name: VolumeInterval(item["volume_low_ml"], item["volume_high_ml"], quality["coverage"])
        for name, item in quality["structures"].items()
        if item["volume_low_ml"] is not None and item["volume_high_ml"] is not None
    }
