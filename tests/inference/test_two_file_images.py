"""Images in two files, header and voxels, are found in a folder and segmented once each."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.inference import Predictor, predict_files
from segmed.io import read_label

NRRD = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 12 10 14
space directions: (1,0,0) (0,1,0) (0,0,1)
endian: little
encoding: raw
space origin: (0,0,0)
data file: {}.raw
"""


@pytest.fixture(scope="module")
def predictor(make_plan, make_package) -> Predictor:
    return Predictor(make_package(make_plan(spacing_mm=(2.0, 2.0, 2.0))), engine="torch")


def write_pairs(folder: Path) -> None:
    folder.mkdir()
    for name, seed in (("one", 1), ("two", 2)):
        voxels = np.random.default_rng(seed).integers(1, 900, (12, 10, 14)).astype(np.int16)
        nib.save(nib.Nifti1Pair(voxels, np.eye(4)), folder / f"{name}.img")
        (folder / f"{name}-nrrd.raw").write_bytes(voxels.tobytes(order="F"))
        (folder / f"{name}-nrrd.nhdr").write_text(NRRD.format(f"{name}-nrrd"), encoding="utf-8")


def test_folder_of_pairs_gives_one_result_a_pair(tmp_path: Path, predictor: Predictor) -> None:
    write_pairs(tmp_path / "scans")
    outcomes = list(predict_files(predictor, [tmp_path / "scans"], tmp_path / "out"))
    assert [(outcome.input.name, outcome.status) for outcome in outcomes] == [
        ("one-nrrd.nhdr", "done"), ("one.hdr", "done"), ("two-nrrd.nhdr", "done"),
        ("two.hdr", "done"),
    ]  # fmt: skip
    labels = [read_label(str(outcome.output)).numpy().tobytes() for outcome in outcomes]
    assert len(set(labels)) > 1
    assert len({outcome.output for outcome in outcomes}) == 4
