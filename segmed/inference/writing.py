"""Results as files: label maps, DICOM objects, probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.errors import ImageError
from segmed.formats import (
    BINARY_SEG,
    DICOM_OUTPUTS,
    OUTPUT_SUFFIXES,
    PLANE_FORMAT,
    RASTER_FORMATS,
    RASTER_OUTPUT_SUFFIX,
    OutputFormat,
    SegForm,
)
from segmed.inference.segmentation import Segmentation
from segmed.io import source_of, write_label, write_probabilities
from segmed.metatensor import MetaTensor
from segmed.package import ModelPackage
from segmed.structures import LabelClass


def suffix_for(output_format: OutputFormat, like: MetaTensor) -> str:
    """Suffix of a result; a label map of a 2D raster image is a PNG."""
    source = source_of(like)
    is_raster = source is not None and source.format in RASTER_FORMATS
    if output_format == "nifti" and is_raster and like.ndim == 3:
        return RASTER_OUTPUT_SUFFIX
    return OUTPUT_SUFFIXES[output_format]


def require_writable(output_format: OutputFormat, like: MetaTensor) -> None:
    """Refuse a format that the source of an image does not allow.

    Args:
        output_format: An output format.
        like: The image, or its shape, affine and source.

    Raises:
        ImageError: `no_dicom_source`: a DICOM object is requested, the image is not a DICOM series.
            `no_volume`: a format of volumes is requested and the image is a plane.
    """
    source = source_of(like)
    if output_format == "seg-nrrd" and like.ndim != 4:
        raise ImageError(
            "seg-nrrd is a format of volumes, got an image of one plane; choose nifti",
            reason="no_volume",
        )
    if source is not None and source.format == PLANE_FORMAT:
        if output_format == "rtstruct":
            raise ImageError(
                "rtstruct draws contours in coordinates of the patient, which an image of one "
                "plane does not state; choose dicom-seg or nifti",
                reason="no_volume",
            )
        return
    if output_format in DICOM_OUTPUTS and (source is None or source.format != "dicom"):
        raise ImageError(
            f"{output_format} needs a DICOM series as input, got "
            f"{'an image made in memory' if source is None else source.format}; choose nifti",
            reason="no_dicom_source",
        )


def identity_of(packages: Sequence[ModelPackage]) -> tuple[str, str]:
    """Name and version of a model, or of an ensemble, as DICOM objects state them."""
    name = "+".join(sorted({package.architecture for package in packages}))
    return name, "+".join(package.hash[: 64 // len(packages)] for package in packages)


def write_result(
    path: Path,
    result: Segmentation,
    output_format: OutputFormat,
    *,
    like: MetaTensor,
    labels: Sequence[LabelClass],
    model_name: str = "",
    model_version: str = "",
    seg: SegForm = BINARY_SEG,
) -> Path:
    """Write one result, whole or not at all.

    Args:
        path: Where to.
        result: The segmentation; with probabilities where these are to be written.
        output_format: An output format.
        like: The image, or its shape, affine and source.
        labels: The structures.
        model_name: Name of the model, for DICOM objects.
        model_version: Hash of the package, for DICOM objects and their identifiers.
        seg: Form of a DICOM segmentation.

    Raises:
        ImageError: `no_dicom_source`: a DICOM object is requested, the image is not a DICOM series.
    """
    if output_format in ("nifti", "seg-nrrd"):
        require_writable(output_format, like)
        return write_label(path, result.label, like=like, labels=labels)
    if output_format == "probabilities":
        assert result.probs is not None
        return write_probabilities(path, result.probs, like=like)
    require_writable(output_format, like)
    model = {"model_name": model_name, "model_version": model_version}
    if output_format == "dicom-seg":
        from segmed.io.dicom.seg import write_dicom_seg  # noqa: PLC0415 - highdicom

        return write_dicom_seg(
            path, result.label, like=like, labels=labels, form=seg, fractions=result.fractions,
            **model,
        )  # fmt: skip
    from segmed.io.dicom.rtstruct import write_rtstruct  # noqa: PLC0415 - DICOM only

    return write_rtstruct(path, result.label, like=like, labels=labels, **model)
