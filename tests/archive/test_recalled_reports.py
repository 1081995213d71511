"""Reports of a run whose drift withdraws intervals: replaced here and where they were sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.data import MetaTensor
from tiny_model import LABELS, tiny_package

from segmed.archive import FolderSource, RunOptions, segment_archive
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.quality_bound import read_bound
from segmed.errors import ServiceError
from segmed.findings.withdrawal import MARK
from segmed.formats import SegForm
from segmed.inference import Predictor
from segmed.io.dicom.write import Identity, write_series
from segmed.metrics.training_norms import measure_reference, training_norms
from segmed.quality.fitting import QualityCase, StructureTruth, fit_quality
from segmed.quality.identity import PREDICTED_QUALITY

STUDIES, KNOWN = 8, 40
MakeVolume = Callable[..., MetaTensor]


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


@pytest.fixture(scope="module")
def predictor(make_volume: MakeVolume) -> Predictor:
    """A model with predicted quality and norms of forty made volumes."""
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
    package = replace(untrained, provenance={**training_norms(measured), **stated})
    return Predictor(package, device="cpu", engine="torch")


def run(folder: Path, out: Path, predictor: Predictor, pacs: Pacs | None = None) -> None:
    options = RunOptions(
        seg=SegForm(reports=("sr", "hl7", "fhir")), retry=RetryPolicy(attempts=1, first_wait_s=0.0)
    )
    outcomes = segment_archive(
        FolderSource(folder), predictor=predictor, out_dir=out, format="dicom-seg",
        delivery=pacs, options=options,
    )  # fmt: skip
    assert {outcome.status for outcome in outcomes} == {"done"}


def write_studies(folder: Path, make_volume: MakeVolume, *, first: int, factor: float) -> None:
    for seed in range(first, first + STUDIES):
        volume = make_volume(seed)
        volume = MetaTensor(volume.as_tensor() * factor, affine=volume.affine)
        write_series(folder / str(seed), volume, identity=Identity(patient_id=f"P{seed}"))


def stating(out: Path) -> int:
    """Reports beside the outputs that state an interval."""
    files = [path for path in (out / "segmentations").iterdir() if path.is_file()]
    return sum(MARK in path.read_bytes() for path in files)


def test_sound_runs_state_intervals_and_drifted_ones_are_recalled_from_the_pacs(
    tmp_path: Path, predictor: Predictor, make_volume: MakeVolume
) -> None:
    studies, out, pacs = tmp_path / "in", tmp_path / "out", Pacs()
    write_studies(studies, make_volume, first=100, factor=1.0)
    run(studies, out, predictor, pacs)
    assert read_bound(out).withdrawn == ()
    assert stating(out) == 3 * STUDIES
    assert pacs.stating == STUDIES
    shutil.rmtree(studies)
    write_studies(studies, make_volume, first=200, factor=20.0)
    run(studies, out, predictor, pacs)
    assert read_bound(out).withdrawn
    assert stating(out) == 3 * STUDIES  # those of the sound run
    assert pacs.stating == STUDIES
    assert len(pacs.objects) == 4 * STUDIES
    assert len(pacs.withdrawn) == STUDIES
    # While the withdrawal is in force no new report states an interval.
    write_studies(studies, make_volume, first=300, factor=1.0)
    for seed in range(302, 308):
        shutil.rmtree(studies / str(seed))
    run(studies, out, predictor, pacs)
    assert read_bound(out).withdrawn
    assert stating(out) == 3 * STUDIES
    assert pacs.stating == STUDIES
    assert len(pacs.withdrawn) == STUDIES  # nothing had to be recalled


class FailingOnceFull(Pacs):
    """Goes down after so many objects."""

    def deliver(self, path: Path) -> str:
        address = super().deliver(path)
        self.is_down = len(self.objects) == 2 * STUDIES
        return address


def test_a_report_that_cannot_be_replaced_is_replaced_by_the_next_run(
    tmp_path: Path,
    predictor: Predictor,
    make_volume: MakeVolume,
    caplog: pytest.LogCaptureFixture,
) -> None:
    studies, out, pacs = tmp_path / "in", tmp_path / "out", FailingOnceFull()
    write_studies(studies, make_volume, first=200, factor=20.0)
    run(studies, out, predictor, pacs)
    assert pacs.stating == STUDIES
    assert stating(out) == 3 * STUDIES
    assert f"reports of {STUDIES} studies still state intervals" in caplog.text
    run(studies, out, predictor)  # without a destination nothing that was sent is changed here
    assert stating(out) == 3 * STUDIES
    again = Pacs(objects=dict(pacs.objects))
    run(studies, out, predictor, again)
    assert stating(out) == 0
    assert again.stating == 0
    assert len(again.objects) == 2 * STUDIES
