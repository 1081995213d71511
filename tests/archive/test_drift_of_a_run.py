"""The drift watch on runs over real images: sound ones are quiet, drifted ones raise the alarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_model import LABELS, tiny_package

from segmed.archive import FolderSource, segment_archive
from segmed.archive.drift import DriftRow, drift_table, read_drift
from segmed.inference import Predictor
from segmed.io import read_image
from segmed.metrics.training_norms import measure_reference, training_norms
from segmed.package import ModelPackage

NUM_SCANS = 12


@pytest.fixture(scope="module")
def images(shared_data: Callable[[str], Path]) -> list[Path]:
    return sorted((shared_data("hippocampus") / "imagesTr").glob("*.nii.gz"))


@pytest.fixture(scope="module")
def package(images: list[Path]) -> ModelPackage:
    """A model that remembers what its cases looked like, and what it found in them."""
    untrained = tiny_package(patch=32)
    predictor = Predictor(untrained, device="cpu", engine="torch")
    cases = []
    for path in images[NUM_SCANS:]:
        image = read_image(path)
        cases.append(measure_reference(image, predictor.predict(image).label, LABELS))
    return replace(untrained, provenance=training_norms(cases))


def run(root: Path, package: ModelPackage, out: Path) -> None:
    predictor = Predictor(package, device="cpu", engine="torch")
    list(segment_archive(FolderSource(root), predictor=predictor, out_dir=out))


def write_scans(
    images: list[Path], root: Path, change: Callable[[np.ndarray], np.ndarray], edge_mm: float = 1.0
) -> None:
    root.mkdir(exist_ok=True)
    for path in images[:NUM_SCANS]:
        image = nib.load(path)
        affine = image.affine @ np.diag([edge_mm, edge_mm, edge_mm, 1.0])
        voxels = change(np.asarray(image.dataobj, np.float32))
        nib.save(nib.Nifti1Image(voxels, affine), root / path.name)


def test_run_of_the_same_kind_is_quiet(
    images: list[Path], package: ModelPackage, tmp_path: Path
) -> None:
    write_scans(images, tmp_path / "scans", lambda voxels: voxels)
    run(tmp_path / "scans", package, tmp_path / "out")
    rows = read_drift(tmp_path / "out")
    assert {row.num_run for row in rows} == {NUM_SCANS}
    assert [row for row in rows if row.is_alarm] == []
    assert (tmp_path / "out/drift.csv").read_text(encoding="utf-8").startswith("feature,")


@pytest.mark.parametrize(
    ("change", "edge_mm", "features"),
    [
        (lambda voxels: 3.0 * voxels + 100.0, 1.0, {"intensity:0:median", "intensity:0:range"}),
        (lambda voxels: voxels, 1.5, {"spacing_mm:0", "spacing_mm:1", "spacing_mm:2"}),
    ],
    ids=["another scanner", "another protocol"],
)
def test_drifted_run_raises_the_alarm_of_what_drifted(
    images: list[Path],
    package: ModelPackage,
    tmp_path: Path,
    change: Callable[[np.ndarray], np.ndarray],
    edge_mm: float,
    features: set[str],
) -> None:
    write_scans(images, tmp_path / "scans", change, edge_mm)
    run(tmp_path / "scans", package, tmp_path / "out")
    rows = read_drift(tmp_path / "out")
    assert features <= {row.feature for row in rows if row.is_alarm}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    alarms = [row.feature for row in rows if row.is_alarm]
    assert [row.feature for row in rows][: len(alarms)] == alarms, "alarms come first"
    assert all(f"Drift alarm: {feature} is" in page for feature in alarms)


def test_what_was_refused_in_other_runs_counts_in_none(
    images: list[Path], package: ModelPackage, tmp_path: Path
) -> None:
    root, out = tmp_path / "scans", tmp_path / "out"
    root.mkdir()
    for number in range(10):
        (root / f"broken{number}.nii").write_bytes(bytes([number]) * 400)
    run(root, package, out)
    [refused] = [row for row in read_drift(out) if row.feature == "refused"]
    assert refused.is_alarm, "ten of ten refused is an alarm"
    write_scans(images, root, lambda voxels: voxels)
    run(root, package, out)
    [refused] = [row for row in read_drift(out) if row.feature == "refused"]
    assert (refused.num_run, refused.run) == (NUM_SCANS, 0.0)
    assert not any(row.is_alarm for row in read_drift(out))


def test_run_that_was_cut_off_counts_as_one_with_its_continuation(
    images: list[Path], package: ModelPackage, tmp_path: Path
) -> None:
    root, out = tmp_path / "scans", tmp_path / "out"
    write_scans(images, root, lambda voxels: voxels)
    predictor = Predictor(package, device="cpu", engine="torch")
    outcomes = iter(segment_archive(FolderSource(root), predictor=predictor, out_dir=out))
    next(outcomes)
    outcomes.close()
    run(root, package, out)
    assert {row.num_run for row in read_drift(out)} == {NUM_SCANS}


def test_run_without_anything_new_is_not_judged(
    images: list[Path], package: ModelPackage, tmp_path: Path
) -> None:
    write_scans(images, tmp_path / "scans", lambda voxels: voxels)
    run(tmp_path / "scans", package, tmp_path / "out")
    run(tmp_path / "scans", package, tmp_path / "out")
    assert read_drift(tmp_path / "out") == []
    assert not (tmp_path / "out" / "drift.csv").exists()


def test_table_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    row = DriftRow("flagged", 10, 12, 0.1, 0.30000000000000004, 0.2, 0.01, is_alarm=False)
    table = drift_table([row]).rename(columns={"num_run": "num_night", "run": "night"})
    table.to_csv(tmp_path / "drift.csv", index=False)
    assert read_drift(tmp_path) == [row]
