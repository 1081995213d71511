"""Reports of a run whose drift withdraws intervals: replaced here and where they were sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.data import MetaTensor
from rated_model import DRIFTED, SOUND, Pacs, rated_package, write_study

from segmed.archive import FolderSource, RunOptions, segment_archive
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.quality_bound import read_bound
from segmed.findings.withdrawal import MARK
from segmed.formats import SegForm
from segmed.inference import Predictor

STUDIES = 8
MakeVolume = Callable[..., MetaTensor]


@pytest.fixture(scope="module")
def predictor(make_volume: MakeVolume) -> Predictor:
    return Predictor(rated_package(make_volume), device="cpu", engine="torch")


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
        write_study(folder / str(seed), make_volume, seed, factor)


def stating(out: Path) -> int:
    """Reports beside the outputs that state an interval."""
    files = [path for path in (out / "segmentations").iterdir() if path.is_file()]
    return sum(MARK in path.read_bytes() for path in files)


def test_sound_runs_state_intervals_and_drifted_ones_are_recalled_from_the_pacs(
    tmp_path: Path, predictor: Predictor, make_volume: MakeVolume
) -> None:
    studies, out, pacs = tmp_path / "in", tmp_path / "out", Pacs()
    write_studies(studies, make_volume, first=100, factor=SOUND)
    run(studies, out, predictor, pacs)
    assert read_bound(out).withdrawn == ()
    assert stating(out) == 3 * STUDIES
    assert pacs.stating == STUDIES
    shutil.rmtree(studies)
    write_studies(studies, make_volume, first=200, factor=DRIFTED)
    run(studies, out, predictor, pacs)
    assert read_bound(out).withdrawn
    assert stating(out) == 3 * STUDIES  # those of the sound run
    assert pacs.stating == STUDIES
    assert len(pacs.objects) == 4 * STUDIES
    assert len(pacs.withdrawn) == STUDIES
    # While the withdrawal is in force no new report states an interval.
    write_studies(studies, make_volume, first=300, factor=SOUND)
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
    write_studies(studies, make_volume, first=200, factor=DRIFTED)
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
