"""A decoder that crashes ends its own study, also where no worker processes are used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from segmed.archive import FolderSource, segment_archive
from segmed.inference import Predictor


@pytest.fixture
def archive(
    tmp_path: Path, write_dicom: Callable[..., list[Path]], write_nifti: Callable[..., Path]
) -> Path:
    """A NIfTI study, a plain DICOM study and a compressed one."""
    write_nifti(tmp_path / "archive/a.nii.gz", 1)
    write_dicom(tmp_path / "archive/plain", 2)
    for path in write_dicom(tmp_path / "archive/compressed", 3):
        dataset = pydicom.dcmread(path)
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.save_as(path)
    return tmp_path / "archive"


def test_compressed_study_is_segmented_like_the_plain_one(
    archive: Path, tmp_path: Path, predictor: Predictor, write_dicom: Callable[..., list[Path]]
) -> None:
    write_dicom(tmp_path / "twin/plain", 3)
    outputs = []
    for name in ("archive/compressed", "twin"):
        (outcome,) = segment_archive(
            FolderSource(tmp_path / name), predictor=predictor, out_dir=tmp_path / "out" / name
        )
        assert outcome.status == "done"
        outputs.append(tmp_path / "out" / name / str(outcome.output))
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_decoder_that_crashes_ends_its_study_and_no_other(
    archive: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "python"
    deadly.write_text("#!/bin/sh\nkill -SEGV $$\n", encoding="utf-8")
    deadly.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deadly))
    outcomes = list(
        segment_archive(FolderSource(archive), predictor=predictor, out_dir=tmp_path / "out")
    )
    assert sorted(outcome.status for outcome in outcomes) == ["done", "done", "refused"]
    refused = next(outcome for outcome in outcomes if outcome.status == "refused")
    assert refused.reason.startswith("decoder_crashed: ")
    assert refused.form == "dicom"
