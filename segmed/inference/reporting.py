"""Reports of one prediction: measured of its label map, written beside its DICOM segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.findings.record import findings_of
from segmed.findings.reports import modality_of, write_reports
from segmed.formats import ReportKind
from segmed.inference.segmentation import Segmentation
from segmed.inference.writing import identity_of
from segmed.metatensor import MetaTensor
from segmed.metrics.measures import measure_label
from segmed.metrics.training_norms import ranges_of
from segmed.package import ModelPackage
from segmed.quality.statements import volume_intervals


def report_beside(
    output: Path,
    found: Segmentation,
    kinds: Sequence[ReportKind],
    *,
    image: MetaTensor,
    packages: Sequence[ModelPackage],
) -> list[Path]:
    """Measure a segmentation and write its reports.

    Args:
        output: The DICOM segmentation, which has been written.
        found: The segmentation.
        kinds: The reports requested.
        image: The image, or its shape, affine and source.
        packages: The model, or the members of an ensemble.

    Returns:
        The files.
    """
    labels = packages[0].plan.labels
    measured = measure_label(found.label, labels, ranges=ranges_of(packages[0].provenance))
    name, version = identity_of(packages)
    findings = findings_of(
        labels,
        measured["volumes_ml"],
        measured["flags"],
        model_name=name,
        model_version=version,
        intervals=volume_intervals(None if found.quality is None else found.quality.record()),
        is_plane=image.ndim == 3,
    )
    return write_reports(output, findings, kinds, modality=modality_of(image))
