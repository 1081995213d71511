"""Effects of a new model, another format and a dry run on studies that are done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from tiny_model import tiny_package

from segmed.archive import (
    FolderSource,
    RunOptions,
    model_of,
    preview_archive,
    segment_archive,
)
from segmed.errors import UsageError
from segmed.formats import SegForm
from segmed.inference import Predictor


@pytest.fixture
def source(tmp_path: Path, write_nifti: Callable[..., Path]) -> FolderSource:
    for seed in range(2):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
    return FolderSource(tmp_path / "archive")


def test_new_model_segments_again_only_when_asked(
    tmp_path: Path, source: FolderSource, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    old = list(segment_archive(source, predictor=predictor, out_dir=out))
    challenger = Predictor(tiny_package(seed=1), device="cpu", engine="torch")
    kept = list(segment_archive(source, predictor=challenger, out_dir=out))
    assert [(o.key, o.fresh) for o in kept] == [(o.key, False) for o in old]
    asked = RunOptions(resegment=True)
    new = list(segment_archive(source, predictor=challenger, out_dir=out, options=asked))
    assert all(outcome.fresh and outcome.status == "done" for outcome in new)
    assert {outcome.package for outcome in new} == {challenger.packages[0].hash}
    assert len(list((out / "segmentations").glob("*.gz"))) == 4


def test_dry_run_says_what_would_be_done_and_writes_nothing(
    tmp_path: Path, source: FolderSource, predictor: Predictor
) -> None:
    out, model = tmp_path / "out", model_of(predictor.packages)
    before = list(preview_archive(source, model=model, out_dir=out))
    assert [outcome.status for outcome in before] == ["pending"] * 2
    assert not out.exists()
    limit = RunOptions(limit=1)
    list(segment_archive(source, predictor=predictor, out_dir=out, options=limit))
    after = list(preview_archive(source, model=model, out_dir=out))
    assert sorted(outcome.status for outcome in after) == ["done", "pending"]


def test_unknown_format_lists_the_known_ones(
    tmp_path: Path, source: FolderSource, predictor: Predictor
) -> None:
    run = segment_archive(source, predictor=predictor, out_dir=tmp_path / "out", format="jpeg")
    with pytest.raises(UsageError, match="dicom-seg, nifti, rtstruct"):
        next(run)


def test_dicom_object_of_a_nifti_file_is_refused(
    tmp_path: Path, source: FolderSource, predictor: Predictor
) -> None:
    run = segment_archive(source, predictor=predictor, out_dir=tmp_path / "out", format="dicom-seg")
    assert {outcome.reason.split(":")[0] for outcome in run} == {"no_dicom_source"}


def test_rtstruct_is_written_for_a_series(
    tmp_path: Path, predictor: Predictor, write_dicom: Callable[..., list[Path]]
) -> None:
    write_dicom(tmp_path / "series", 1)
    run = segment_archive(
        FolderSource(tmp_path / "series"), predictor=predictor, out_dir=tmp_path / "out",
        format="rtstruct",
    )  # fmt: skip
    [outcome] = run
    assert outcome.status == "done"
    assert str(outcome.output).endswith(".rtstruct.dcm")


def test_each_form_of_a_segmentation_object_is_an_output_of_its_own(
    tmp_path: Path, predictor: Predictor, write_dicom: Callable[..., list[Path]]
) -> None:
    write_dicom(tmp_path / "series", 1)
    out = tmp_path / "out"
    keys, kinds = set(), []
    for form in (SegForm(), SegForm("labelmap"), SegForm("fractional")):
        run = segment_archive(
            FolderSource(tmp_path / "series"), predictor=predictor, out_dir=out,
            format="dicom-seg", options=RunOptions(seg=form),
        )  # fmt: skip
        [outcome] = run
        assert (outcome.status, outcome.reason) == ("done", "")
        assert outcome.fresh
        keys.add(outcome.key)
        kinds.append(pydicom.dcmread(out / str(outcome.output)).SegmentationType)
    assert len(keys) == 3
    assert kinds == ["BINARY", "LABELMAP", "FRACTIONAL"]


def test_several_channels_come_from_files_named_by_channel(
    tmp_path: Path, write_nifti: Callable[..., Path]
) -> None:
    for channel in range(2):
        write_nifti(tmp_path / f"archive/case_{channel:04d}.nii.gz", channel)
    write_nifti(tmp_path / "archive/alone_0000.nii.gz", 7)
    predictor = Predictor(tiny_package(channels=2), device="cpu", engine="torch")
    source = FolderSource(tmp_path / "archive", num_channels=2)
    outcomes = list(segment_archive(source, predictor=predictor, out_dir=tmp_path / "out"))
    assert sorted(o.reason.split(":")[0] or o.status for o in outcomes) == [
        "done",
        "other_channels",
    ]
