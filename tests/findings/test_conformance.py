"""Every form of segmentation with its SR, before the peers: conformant, same numbers and voxels."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its users know it by this name
import torch
from dicom_peers import dciodvfy_errors, peer, validator_errors

from segmed.findings.record import findings_of
from segmed.findings.reports import write_reports
from segmed.formats import SegForm
from segmed.io import read_image, write_label
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.io.fractions import Fractions, bytes_of
from segmed.metatensor import MetaTensor
from segmed.structures import Code, LabelClass, Maker

LIVER, SPLEEN = Maker(name="unet liver", version="1f" * 32), Maker(name="swin", version="2a" * 32)
PLAIN = (
    LabelClass(name="liver", value=1, code=Code(scheme="SCT", value="10200004", meaning="Liver")),
    LabelClass(name="vein", value=3),
    LabelClass(name="spleen", value=4),
    LabelClass(name="absent", value=7),
)
JOINED = tuple(
    one.model_copy(update={"made_by": maker})
    for one, maker in zip(PLAIN, (LIVER, LIVER, SPLEEN, SPLEEN), strict=True)
)
"""As `--several joined` draws them: each structure by one of several models."""

SHAPE, SPACING, VOXEL_ML = (12, 11, 8), (1.5, 1.25, 2.0), 3.75e-3

YOUNGER_THAN_IT = (
    "Information Object Not found", "Shall not be present for Referenced SOP Class that is not",
)  # fmt: skip
"""Errors about label maps, whose class is of 2024: of all, by dciodvfy of 2022, and of their SR."""


@dataclass(frozen=True)
class Result:
    """A segmentation with its SR.

    Attributes:
        seg: The segmentation.
        report: The SR.
        image: The image.
        numbers: Segment number of each voxel, 0 for none.
        labels: The structures.
        form: Its form.
    """

    seg: Path
    report: Path
    image: MetaTensor
    numbers: np.ndarray
    labels: tuple[LabelClass, ...]
    form: SegForm


CASES = {
    "binary": (SegForm(), PLAIN),
    "binary-all-frames": (SegForm(all_frames=True), PLAIN),
    "labelmap": (SegForm("labelmap"), PLAIN),
    "fractional": (SegForm("fractional"), PLAIN),
    "joined-binary": (SegForm(), JOINED),
    "joined-labelmap": (SegForm("labelmap"), JOINED),
}


def drawn() -> np.ndarray:
    """Segment numbers of three structures; two of them touch, and one has two pieces."""
    numbers = np.zeros(SHAPE, np.uint8)
    numbers[1:6, 2:7, 1:5] = 1
    numbers[4:6, 5:9, 3:6] = 2
    numbers[8:11, 1:4, 0:3] = 3
    numbers[8:11, 8:10, 6:8] = 3
    return numbers


def fractions_of(numbers: np.ndarray) -> Fractions:
    """Probabilities that are largest for the drawn structures, and unsure everywhere."""
    noise = np.random.default_rng(0).uniform(0, 0.5, (len(PLAIN) + 1, *SHAPE))
    for number in range(len(PLAIN) + 1):
        noise[number][numbers == number] += 0.6
    probs = (noise / noise.sum(axis=0)).astype(np.float32)
    fractions = Fractions(len(PLAIN), SHAPE, exclusive=True)
    box = tuple(slice(0, size) for size in SHAPE)
    fractions.put(box, bytes_of(probs, exclusive=True))
    return fractions


@pytest.fixture(params=sorted(CASES))
def result(request: pytest.FixtureRequest, tmp_path: Path) -> Result:
    form, labels = CASES[request.param]
    affine = torch.diag(torch.tensor([-SPACING[0], -SPACING[1], SPACING[2], 1.0]).double())
    voxels = torch.arange(np.prod(SHAPE), dtype=torch.float32).reshape(1, *SHAPE)
    write_series(tmp_path / "series", MetaTensor(voxels, affine=affine))
    image, numbers = read_image(tmp_path / "series"), drawn()
    values = np.array([0, *(item.value for item in labels)], np.int32)
    seg = write_dicom_seg(
        tmp_path / "x.seg.dcm",
        torch.from_numpy(values[numbers]),
        like=image,
        labels=labels,
        model_name="unet",
        model_version="3f" * 32,
        form=form,
        fractions=fractions_of(numbers) if form.kind == "fractional" else None,
    )
    volumes = {
        item.name: float((numbers == number).sum()) * VOXEL_ML
        for number, item in enumerate(labels, 1)
    }
    found = findings_of(
        labels, volumes, ["fragments:spleen", "empty:absent"], model_name="unet",
        model_version="3f" * 32,
    )  # fmt: skip
    (report,) = write_reports(seg, found, ("sr",), modality="MR")
    return Result(seg, report, image, numbers, labels, form)


def test_dciodvfy_finds_no_error(result: Result) -> None:
    known = YOUNGER_THAN_IT if result.form.kind == "labelmap" else ()
    for path in (result.seg, result.report):
        errors = dciodvfy_errors(path)
        assert [one for one in errors if not any(words in one for words in known)] == []


def test_dicom_validator_finds_no_error(result: Result) -> None:
    for path in (result.seg, result.report):
        assert validator_errors(path) == []


def test_dicom_validator_finds_what_is_missing_or_does_not_belong(
    result: Result, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(result.seg)
    del dataset.SegmentSequence[0].SegmentAlgorithmType
    dataset.EchoTime = 1.0
    dataset.save_as(tmp_path / "broken.dcm")
    errors = " ".join(validator_errors(tmp_path / "broken.dcm"))
    assert "(0062,0008) TagMissing" in errors
    assert "(0018,0081) TagUnexpected" in errors


def test_dcmqi_reads_the_same_numbers_and_voxels(result: Result, tmp_path: Path) -> None:
    reader, converter = (
        peer(name, "the developers' tool dcmqi") for name in ("tid1500reader", "segimage2itkimage")
    )
    measured_file = tmp_path / "sr.json"
    command = [reader, "--inputDICOM", str(result.report), "--outputMetadata", str(measured_file)]
    subprocess.run(command, check=True, capture_output=True)
    groups = json.loads(measured_file.read_text(encoding="utf-8"))["Measurements"]
    assert [group["ReferencedSegment"] for group in groups] == [1, 2, 3, 4]
    (tmp_path / "read").mkdir()
    command = [converter, "--inputDICOM", str(result.seg), "--outputDirectory"]
    subprocess.run(
        [*command, str(tmp_path / "read"), "--outputType", "nii"], check=True, capture_output=True
    )
    for number, (group, item) in enumerate(zip(groups, result.labels, strict=True), 1):
        (measured,) = group["measurementItems"]
        volume = float((result.numbers == number).sum()) * VOXEL_ML
        assert float(measured["value"]) == pytest.approx(volume, abs=1e-12)
        maker = item.made_by or Maker(name="unet", version="3f" * 32)
        algorithm = group["measurementAlgorithmIdentification"]
        assert algorithm == {"AlgorithmName": maker.name, "AlgorithmVersion": maker.version}
        if result.form.kind != "fractional":
            mask = read_by_dcmqi(result, tmp_path / "read", number)
            np.testing.assert_array_equal(mask, result.numbers == number)
            assert mask.sum() * VOXEL_ML == pytest.approx(float(measured["value"]))


def read_by_dcmqi(result: Result, folder: Path, number: int) -> np.ndarray:
    """Mask of a segment, on the grid of the image; without voxels dcmqi writes no file."""
    is_map = result.form.kind == "labelmap"
    path = folder / ("1.nii.gz" if is_map else f"{number}.nii.gz")
    if not path.is_file():
        return np.zeros(SHAPE, bool)
    label = torch.from_numpy(result.numbers.astype(np.int32))
    ours = sitk.ReadImage(str(write_label(folder / "ours.nii.gz", label, like=result.image)))
    theirs = sitk.ReadImage(str(path))
    aligned = sitk.Resample(theirs, ours, sitk.Transform(), sitk.sitkNearestNeighbor)
    values = sitk.GetArrayFromImage(aligned).transpose(2, 1, 0)
    return np.asarray(values == number if is_map else values > 0)
