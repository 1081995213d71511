"""A model with predicted quality, studies that are like its training or drifted, and a PACS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
from monai.data import MetaTensor
from tiny_model import LABELS, tiny_package

from segmed.errors import ServiceError
from segmed.findings.withdrawal import MARK
from segmed.inference import Predictor
from segmed.io.dicom.write import Identity, write_series
from segmed.metrics.training_norms import measure_reference, training_norms
from segmed.package import ModelPackage
from segmed.quality.fitting import QualityCase, StructureTruth, fit_quality
from segmed.quality.identity import PREDICTED_QUALITY

KNOWN = 40
SOUND, DRIFTED = 1.0, 20.0
"""Factors of all intensities of a study."""

MakeVolume = Callable[..., MetaTensor]


def rated_package(make_volume: MakeVolume) -> ModelPackage:
    """A package with predicted quality and norms of forty made volumes."""
    untrained = tiny_package(patch=16)
    rater, cases, measured = Predictor(untrained, device="cpu", engine="torch"), [], []
    rater.gather_features()
    for seed in range(KNOWN):
        image = make_volume(seed)
        found = rater.predict(image)
        measured.append(measure_reference(image, found.label, LABELS))
        counts = np.bincount(np.asarray(found.label).ravel(), minlength=3)
        truth = {
            one.name: StructureTruth(0.9, counts[one.value] / 1000.0, counts[one.value] / 1000.0)
            for one in LABELS
        }
        assert found.features is not None
        cases.append(QualityCase(str(seed), found.features, truth))
    model = fit_quality(cases, basis="held_out")
    assert model is not None
    stated = {PREDICTED_QUALITY: model.model_dump(mode="json")}
    return replace(untrained, provenance={**training_norms(measured), **stated})


def write_study(folder: Path, make_volume: MakeVolume, seed: int, factor: float) -> list[Path]:
    """Write the DICOM series of one patient."""
    volume = make_volume(seed)
    volume = MetaTensor(volume.as_tensor() * factor, affine=volume.affine)
    return write_series(folder, volume, identity=Identity(patient_id=f"P{seed}"))


@dataclass
class Pacs:
    """A place that keeps each object by its identifier, and takes objects back."""

    is_down: bool = False
    objects: dict[str, bytes] = field(default_factory=dict)
    withdrawn: list[str] = field(default_factory=list)

    def deliver(self, path: Path) -> str:
        if self.is_down:
            raise ServiceError("down")
        uid = str(pydicom.dcmread(path).SOPInstanceUID)
        self.objects.setdefault(uid, path.read_bytes())  # what is there stays, as in Orthanc
        return uid

    def has(self, address: str) -> bool:
        return address in self.objects

    def withdraw(self, address: str) -> None:
        if self.is_down:
            raise ServiceError("down")
        self.withdrawn.append(address)
        self.objects.pop(address, None)

    @property
    def stating(self) -> int:
        """Objects that state an interval."""
        return sum(MARK in content for content in self.objects.values())
