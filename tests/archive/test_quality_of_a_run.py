"""Predicted quality of a run in every output; withdrawn by name where its studies drift."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from tiny_model import LABELS, tiny_package

from pipelines.runs.metrics import ArchiveFigures
from segmed.archive import FolderSource, segment_archive
from segmed.archive.quality_bound import NO_BOUND, QUALITY_FILE, read_bound
from segmed.archive.review.archive import ReviewArchive
from segmed.archive.run import RunOptions
from segmed.inference import Predictor
from segmed.io import grid_of, read_image
from segmed.metrics.training_norms import measure_reference, training_norms
from segmed.package import ModelPackage
from segmed.quality.fitting import QualityCase, StructureTruth, fit_quality
from segmed.quality.identity import PREDICTED_QUALITY
from segmed.quality.risk import RiskTarget

NUM_SCANS = 12
TARGET = RiskTarget(review=0.2, risk=0.1, dice=0.7, confidence=0.9)


@pytest.fixture(scope="module")
def images(shared_data: Callable[[str], Path]) -> list[Path]:
    return sorted((shared_data("hippocampus") / "imagesTr").glob("*.nii.gz"))[:112]


@pytest.fixture(scope="module")
def package(images: list[Path]) -> ModelPackage:
    """An untrained network whose results are assumed to be good: Dice of 0.85 to 0.95."""
    untrained = tiny_package(patch=32)
    predictor = Predictor(untrained, device="cpu", engine="torch")
    predictor.observer.is_on = True
    rng, measured, cases = np.random.default_rng(0), [], []
    for path in images[NUM_SCANS:]:
        image = read_image(path)
        found = predictor.predict(image)
        measured.append(measure_reference(image, found.label, LABELS))
        voxel_ml = float(np.prod(grid_of(image).spacing_mm)) / 1000.0
        counts = np.bincount(np.asarray(found.label).ravel(), minlength=3)
        truth = {
            label.name: StructureTruth(
                float(rng.uniform(0.85, 0.95)),
                counts[label.value] * voxel_ml,
                counts[label.value] * voxel_ml * float(rng.uniform(0.9, 1.2)),
            )
            for label in LABELS
        }
        assert found.features is not None
        cases.append(QualityCase(path.name, found.features, truth))
    model = fit_quality(cases, basis="held_out")
    assert model is not None
    stated = {PREDICTED_QUALITY: model.model_dump(mode="json")}
    return replace(untrained, provenance={**training_norms(measured), **stated})


def run(root: Path, package: ModelPackage, out: Path) -> None:
    predictor = Predictor(package, device="cpu", engine="torch")
    options = RunOptions(target=TARGET)
    list(segment_archive(FolderSource(root), predictor=predictor, out_dir=out, options=options))


def write_scans(paths: list[Path], root: Path, *, factor: float = 1.0) -> None:
    root.mkdir(exist_ok=True)
    for path in paths:
        image = nib.load(path)
        voxels = np.asarray(image.dataobj, np.float32) * factor
        nib.save(nib.Nifti1Image(voxels, image.affine), root / path.name)


def outcomes_of(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "outcomes.json").read_text(encoding="utf-8"))


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "volumes.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def figure(out: Path, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(ArchiveFigures(out))
    return registry.get_sample_value(f"segmed_{name}", labels)


def test_quality_is_in_every_output(
    images: list[Path], package: ModelPackage, tmp_path: Path
) -> None:
    write_scans(images[:NUM_SCANS], tmp_path / "scans")
    out = tmp_path / "out"
    run(tmp_path / "scans", package, out)
    bound = read_bound(out)
    assert bound.is_promised
    assert bound.is_watched
    assert bound.withdrawn == ()
    for outcome in outcomes_of(out):
        quality = outcome["quality"]
        assert quality["to_review"] == (quality["score"] < bound.threshold)
        for item in quality["structures"].values():
            assert item["low"] <= item["dice"] <= item["high"]
            assert item["volume_low_ml"] < item["volume_high_ml"]
    rows = rows_of(out)
    for row in rows:
        low, high = float(row["anterior_ml_low"]), float(row["anterior_ml_high"])
        assert low < float(row["anterior_ml"]) * 1.05 < high
        assert float(row["predicted_quality"]) <= float(row["anterior_dice"])
        assert 0.0 <= float(row["posterior_dice_low"]) <= float(row["posterior_dice_high"]) <= 1.0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "of the unreviewed are under Dice 0.7, with 90% confidence" in page
    assert "Lowest predicted Dice" in page
    assert figure(out, "quality_promised") == 1.0
    assert figure(out, "quality_to_review") == bound.to_review
    assert figure(out, "quality_threshold") == bound.threshold
    scores = [row["quality"]["score"] for row in outcomes_of(out)]
    listed = [study.entry.measures["quality"]["score"] for study in ReviewArchive(out).studies()]
    assert listed == sorted(scores)


def test_drift_withdraws_promise_and_intervals_by_name(
    images: list[Path], package: ModelPackage, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    write_scans(images[:NUM_SCANS], scans, factor=4.0)
    run(scans, package, out)
    bound = read_bound(out)
    assert not bound.is_promised
    assert "intensity:0:median" in bound.withdrawn
    for outcome in outcomes_of(out):
        for item in outcome["quality"]["structures"].values():
            assert item["low"] is item["high"] is item["volume_high_ml"] is None
            assert "intensity:0:median drifted" in item["reason"].replace(", intensity:0:range", "")
    assert {row["anterior_ml_low"] for row in rows_of(out)} == {""}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Predicted quality withdrawn: " in page
    assert "of the unreviewed are under" not in page
    assert figure(out, "quality_promised") == 0.0
    assert figure(out, "quality_withdrawn", feature="intensity:0:median") == 1.0
    assert figure(out, "quality_threshold") is None

    # Two further studies cannot show that the drift is over.
    write_scans(images[NUM_SCANS : NUM_SCANS + 2], scans)
    run(scans, package, out)
    assert read_bound(out).withdrawn == bound.withdrawn
    assert not read_bound(out).is_promised

    # Twelve sound ones can; the results of the drifted run stay without intervals.
    shutil.rmtree(scans)
    write_scans(images[20 : 20 + NUM_SCANS], scans)
    run(scans, package, out)
    assert read_bound(out).is_promised
    stated = {row["anterior_ml_low"] == "" for row in rows_of(out)}
    assert stated == {True, False}


def test_a_small_run_says_that_it_cannot_show_drift(
    images: list[Path], package: ModelPackage, tmp_path: Path
) -> None:
    write_scans(images[:2], tmp_path / "scans")
    run(tmp_path / "scans", package, tmp_path / "out")
    bound = read_bound(tmp_path / "out")
    assert not bound.is_watched
    assert "fewer than 8 new studies cannot show whether it applies" in bound.sentence


def test_a_model_without_predicted_quality_states_none(
    images: list[Path], package: ModelPackage, tmp_path: Path
) -> None:
    write_scans(images[:2], tmp_path / "scans")
    out = tmp_path / "out"
    run(tmp_path / "scans", package, out)
    provenance = {k: v for k, v in package.provenance.items() if k != PREDICTED_QUALITY}
    run(tmp_path / "scans", replace(package, provenance=provenance), tmp_path / "plain")
    assert not (tmp_path / "plain" / QUALITY_FILE).exists()
    assert all("quality" not in outcome for outcome in outcomes_of(tmp_path / "plain"))
    assert "predicted_quality" not in rows_of(tmp_path / "plain")[0]
    assert "Lowest predicted Dice" not in (tmp_path / "plain" / "report.html").read_text(
        encoding="utf-8"
    )
    assert figure(tmp_path / "plain", "quality_promised") is None


def test_a_damaged_file_is_no_bound(tmp_path: Path) -> None:
    assert read_bound(tmp_path) is NO_BOUND
    for text in ("{", "[]", '{"withdrawn_runs": {}, "withdrawn": [], "strange": 1}'):
        (tmp_path / QUALITY_FILE).write_text(text, encoding="utf-8")
        assert read_bound(tmp_path) is NO_BOUND
