"""A segmentation with findings, and the reports of it."""

from __future__ import annotations

from pathlib import Path

import pydicom
import torch

from segmed.findings.record import Findings, findings_of
from segmed.formats import SegForm
from segmed.io import read_image
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.metatensor import MetaTensor
from segmed.structures import Code, LabelClass

LABELS = (
    LabelClass(name="anterior", value=1, code=Code(scheme="SCT", value="5366008", meaning="Hip.")),
    LabelClass(name="left | right ^ & ~ \\", value=2),
    LabelClass(name="absent", value=5),
)
VERSION = "3f2a" * 16
FLAGS = ["border:anterior", "fragments:anterior", "empty:absent"]


def written_segmentation(folder: Path, *, name: str = "DOE^JANE", charset: str = "") -> Path:
    """A segmentation of a made series of a patient of this name."""
    voxels = torch.arange(10 * 9 * 6, dtype=torch.float32).reshape(1, 10, 9, 6)
    affine = torch.diag(torch.tensor([-1.5, -1.25, 2.0, 1.0], dtype=torch.float64))
    for path in write_series(folder / "series", MetaTensor(voxels, affine=affine)):
        dataset = pydicom.dcmread(path)
        if charset:
            dataset.SpecificCharacterSet = charset
        dataset.PatientName = name
        dataset.AccessionNumber, dataset.StudyDate = "A|1", "20260102"
        dataset.save_as(path)
    image = read_image(folder / "series")
    return write_dicom_seg(
        folder / "x.seg.dcm", label_map(), like=image, labels=LABELS, model_name="unet",
        model_version=VERSION, form=SegForm(),
    )  # fmt: skip


def label_map() -> torch.Tensor:
    """A label map of the first two structures."""
    label = torch.zeros((10, 9, 6), dtype=torch.int32)
    label[1:5, 2:6, 1:4], label[6:9, 2:4, 2:5] = 1, 2
    return label


def findings() -> Findings:
    """Findings of it: voxels of 3.75 cubic mm."""
    volumes = {entry.name: int((label_map() == entry.value).sum()) * 3.75e-3 for entry in LABELS}
    return findings_of(LABELS, volumes, FLAGS, model_name="unet", model_version=VERSION)
