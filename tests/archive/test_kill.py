"""A run that is killed at any moment continues: nothing lost, nothing doubled, nothing half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import breakages
import killing
import pytest

from segmed.archive import FolderSource, segment_archive
from segmed.inference import Predictor


@pytest.fixture
def broken_archive(
    tmp_path: Path, write_nifti: Callable[..., Path], write_dicom: Callable[..., list[Path]]
) -> tuple[Path, list[str]]:
    """Eight sound studies, and one broken in each of ten ways; with the ten reasons."""
    root = tmp_path / "archive"
    for seed in range(6):
        write_nifti(root / f"sub-{seed}/sound.nii.gz", seed)
    for seed in range(2):
        write_dicom(root / f"sound{seed}", 50 + seed)
    for seed, spoil in enumerate(breakages.NIFTI):
        spoil(write_nifti(root / f"{spoil.__name__}.nii.gz", 100 + seed))
    for seed, spoil_series in enumerate(breakages.DICOM):
        spoil_series(write_dicom(root / spoil_series.__name__, 200 + seed))
    return root, sorted([*breakages.NIFTI.values(), *breakages.DICOM.values()])


def test_each_of_ten_breakages_is_refused_with_its_reason(
    tmp_path: Path, predictor: Predictor, broken_archive: tuple[Path, list[str]]
) -> None:
    root, reasons = broken_archive
    outcomes = list(
        segment_archive(FolderSource(root), predictor=predictor, out_dir=tmp_path / "out")
    )
    assert [outcome.status for outcome in outcomes].count("done") == 8
    refused = [outcome for outcome in outcomes if outcome.status == "refused"]
    assert sorted(outcome.reason.split(":")[0] for outcome in refused) == reasons


def test_killed_and_continued_run_equals_the_undisturbed_one(
    tmp_path: Path, package_folder: Path, broken_archive: tuple[Path, list[str]]
) -> None:
    root, _ = broken_archive
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    killing.run_to_its_end(root, package_folder, calm)
    died = killing.run_and_kill(
        root, package_folder, killed, calm=calm, kills=4, longest_s=4.0, seed=1
    )
    killing.run_to_its_end(root, package_folder, killed)
    assert died >= 1
    assert killing.ends(killed) == killing.ends(calm)
    assert killing.files(killed) == killing.files(calm)
