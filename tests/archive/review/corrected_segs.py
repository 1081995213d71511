"""Segmentation objects as readers store them, by highdicom and dcmqi; a PACS made of files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import torch
from highdicom.sr.coding import CodedConcept

from segmed.archive.pacs.remote import RemoteSeries, RemoteSource
from segmed.errors import ServiceError
from segmed.io import read_image, write_label
from segmed.structures import LabelClass


def write_seg(
    path: Path,
    series: Sequence[Path],
    values: np.ndarray,
    labels: Sequence[LabelClass],
    kind: str,
    *,
    reader: str = "Lovelace^Ada",
    names: Sequence[str] | None = None,
    manufacturer: str = "Reading room",
) -> Path:
    """Write a label map `[columns, rows, slices]` of a series as one form of segmentation.

    Args:
        path: The file.
        series: Files of the series.
        values: Label values.
        labels: Structures; their order gives the segment numbers, from the last one.
        kind: `BINARY`, `FRACTIONAL` or `LABELMAP`.
        reader: Content creator.
        names: Names of the segments, if others than those of the structures.
        manufacturer: Manufacturer of the program.
    """
    sources = sorted(
        (pydicom.dcmread(one) for one in series), key=lambda one: float(one.ImagePositionPatient[2])
    )
    planes = np.asarray(values).transpose(2, 1, 0)
    turned = list(reversed(labels))
    stack = np.stack([planes == one.value for one in turned], axis=-1)
    if kind == "LABELMAP":
        pixels = np.zeros(planes.shape, np.uint8)
        for number in range(len(turned)):
            pixels[stack[..., number]] = number + 1
    else:
        pixels = stack.astype(np.uint8) if kind == "BINARY" else np.where(stack, 0.8, 0.2)
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=(names or [one.name for one in turned])[number - 1],
            segmented_property_category=CodedConcept("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=CodedConcept(
                one.code.value, one.code.scheme, one.code.meaning
            ) if one.code else CodedConcept("85756007", "SCT", "Tissue"),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, one in enumerate(turned, start=1)
    ]  # fmt: skip
    segmentation = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues[kind],
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=99,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=manufacturer,
        manufacturer_model_name="viewer",
        software_versions="1",
        device_serial_number="1",
        content_creator_name=reader,
    )
    segmentation.save_as(path)
    return path


def write_dcmqi_seg(
    path: Path,
    series: Path,
    values: np.ndarray,
    labels: Sequence[LabelClass],
    kind: str,
    *,
    reader: str = "Lovelace^Ada",
) -> Path:
    """Write a label map of a series by dcmqi; skips where that is not installed.

    Args:
        path: The file.
        series: Folder of the series alone.
        values: Label values `[columns, rows, slices]` on the grid of the series as it is read.
        labels: Structures; segment numbers are given from the last one on.
        kind: `binary` or `labelmap`.
        reader: Content creator.
    """
    program = Path(sys.executable).with_name("itkimage2segimage")
    if not program.exists():
        pytest.skip("dcmqi (of the developers' tools) is not installed")
    scratch = path.parent / f"{path.stem}-dcmqi"
    scratch.mkdir()
    image = read_image(series)
    write_label(scratch / "label.nii.gz", torch.from_numpy(values), like=image, labels=labels)
    about = {
        "ContentCreatorName": reader,
        "SeriesDescription": "Corrected",
        "SeriesNumber": "77",
        "InstanceNumber": "1",
        "ClinicalTrialSeriesID": "1",
        "ClinicalTrialTimePointID": "1",
        "segmentAttributes": [[_dcmqi_segment(one) for one in reversed(labels)]],
    }
    (scratch / "about.json").write_text(json.dumps(about), encoding="utf-8")
    words = ["--inputImageList", scratch / "label.nii.gz", "--inputDICOMDirectory", series]
    words += ["--inputMetadata", scratch / "about.json", "--outputDICOM", path]
    words += ["--segmentationType", kind]
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    shutil.rmtree(scratch)
    return path


def _dcmqi_segment(label: LabelClass) -> dict[str, Any]:
    code = label.code
    tissue = ("85756007", "SCT", "Tissue")
    found = tissue if code is None else (code.value, code.scheme, code.meaning)
    names = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    category = ("123037004", "SCT", "Anatomical Structure")
    return {
        "labelID": label.value,
        "SegmentLabel": label.name,
        "SegmentDescription": label.name,
        "SegmentAlgorithmType": "MANUAL",
        "SegmentedPropertyCategoryCodeSequence": dict(zip(names, category, strict=True)),
        "SegmentedPropertyTypeCodeSequence": dict(zip(names, found, strict=True)),
        "recommendedDisplayRGBValue": [10, 200, 30],
    }


@dataclass(frozen=True)
class FilePacs(RemoteSource[Path]):
    """A PACS whose objects are the files of a folder, its service.

    Attributes:
        fetched: Series that were fetched.
        lost: Series that it does not send.
    """

    fetched: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def _heads(self) -> Iterator[tuple[Path, pydicom.Dataset]]:
        for path in sorted(self.service.rglob("*.dcm")):
            yield path, pydicom.dcmread(path, stop_before_pixels=True)

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> None:
        """Copy the files of a series."""
        if series_uid in self.lost:
            raise ServiceError("the DICOM node did not send a series")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.fetched.append(series_uid)
        for number, (path, head) in enumerate(self._heads()):
            if (head.StudyInstanceUID, head.SeriesInstanceUID) == (study_uid, series_uid):
                shutil.copy(path, folder / f"{number:05d}.dcm")

    def _studies(self) -> Iterator[tuple[str, str]]:
        yield from sorted({(h.StudyInstanceUID, h.PatientID) for _, h in self._heads()})

    def _series(self, study_uid: str, patient_id: str) -> list[RemoteSeries]:
        found = {
            str(head.SeriesInstanceUID): RemoteSeries(
                study_uid, str(head.SeriesInstanceUID), str(head.Modality)
            )
            for _, head in self._heads()
            if head.StudyInstanceUID == study_uid
        }
        return sorted(found.values(), key=lambda one: one.series_uid)

    def _instances(self, series: RemoteSeries) -> tuple[str, ...]:
        return tuple(
            str(head.SOPInstanceUID)
            for _, head in self._heads()
            if head.SeriesInstanceUID == series.series_uid
        )
