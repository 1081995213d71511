"""Predict, archive and manifest put the same files together as one case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_package

from segmed.archive import FolderSource, Study, segment_archive
from segmed.errors import ManifestError
from segmed.inference import Predictor, predict_files
from segmed.io import read_label
from segmed.manifest import build_manifest


@pytest.fixture(scope="module")
def of_two() -> Predictor:
    return Predictor(tiny_package(channels=2), device="cpu", engine="torch")


def test_one_tree_gives_the_same_cases_everywhere(
    tmp_path: Path, write_nifti: Callable[..., Path], of_two: Predictor
) -> None:
    images = tmp_path / "set/imagesTr"
    for number, name in enumerate(("ok_0000.nii.gz", "ok_0001.nii.gz", "mix_0000.nii",
                                   "mix_0001.nii.gz", "gap_0000.nii", "gap_0002.nii")):  # fmt: skip
        write_nifti(images / name, number)
    outcomes = list(predict_files(of_two, [images], tmp_path / "out"))
    assert {one.input.name[:3]: one.status for one in outcomes} == {
        "gap": "refused", "mix": "done", "ok_": "done"
    }  # fmt: skip
    assert all("0000, 0002" in str(one.reason) for one in outcomes if one.status == "refused")
    studies = [
        one for one in FolderSource(images, num_channels=2).studies() if isinstance(one, Study)
    ]
    assert {Path(one.place).name[:3]: one.fault is None for one in studies} == {
        "gap": False, "mix": True, "ok_": True
    }  # fmt: skip
    for case in ("ok", "mix", "gap"):
        write_nifti(tmp_path / f"set/labelsTr/{case}.nii.gz")
    (tmp_path / "set/dataset.json").write_text(
        '{"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1}}',
        encoding="utf-8",
    )
    with pytest.raises(ManifestError, match=r"case 'gap' .*0000, 0002"):
        build_manifest(tmp_path / "set")


def test_both_commands_give_the_same_voxels_of_a_case(
    tmp_path: Path, write_nifti: Callable[..., Path], of_two: Predictor
) -> None:
    for channel in range(2):
        write_nifti(tmp_path / f"in/k_{channel:04d}.nii.gz", channel)
    [one] = predict_files(of_two, [tmp_path / "in"], tmp_path / "out")
    assert one.output is not None
    assert one.output.name == "k.nii.gz"
    source = FolderSource(tmp_path / "in", num_channels=2)
    [study] = segment_archive(source, predictor=of_two, out_dir=tmp_path / "arc")
    stored = read_label(tmp_path / "arc" / str(study.output))
    np.testing.assert_array_equal(read_label(one.output).numpy(), stored.numpy())


def test_files_given_one_by_one_are_put_together(
    tmp_path: Path, write_nifti: Callable[..., Path], of_two: Predictor, predictor: Predictor
) -> None:
    files = [write_nifti(tmp_path / f"{c}_{n:04d}.nii", n) for n in (1, 0) for c in "ba"]
    outcomes = list(predict_files(of_two, files, tmp_path / "two"))
    assert [(one.status, one.input.name) for one in outcomes] == [
        ("done", "b_0000.nii"), ("done", "a_0000.nii")
    ]  # fmt: skip
    assert len(list((tmp_path / "two").glob("?.nii.gz"))) == 2
    apart = list(predict_files(predictor, files, tmp_path / "one"))
    assert [one.status for one in apart] == ["done"] * 4
    folder = list(predict_files(predictor, [tmp_path], tmp_path / "three"))
    assert [str(one.reason).split(":")[0] for one in folder][:2] == ["other_channels"] * 2
