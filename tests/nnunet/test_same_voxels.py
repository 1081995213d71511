"""An imported network gives the voxels that nnU-Net itself gives, see `nnunet_golden`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nnunet_folders import plans_of, write_folder
from nnunet_golden import GOLDEN, cases

from segmed.inference import Predictor
from segmed.nnunet import package_of

LEAST_EQUAL = 0.9999
"""Share of voxels: float32 sums in another order move a voxel whose classes are nearly equal."""


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_voxels_are_those_of_nnunet(name: str, engine: str, images, tmp_path: Path) -> None:
    case = cases()[name]
    folder = write_folder(tmp_path / "model", plans_of(**case.plans), **case.folder)
    package = package_of(folder)
    predictor = Predictor(package, device="cpu", engine=engine)
    assert predictor.tta == case.mirrors
    given = images[0] if case.channels == 1 else list(images[: case.channels])
    found = predictor.predict(given).label[0].numpy()
    expected = np.load(GOLDEN / f"{name}.npz")["label"]
    assert found.shape == expected.shape
    assert np.bincount(expected.ravel()).min() > 100  # every structure is there
    assert (found == expected).mean() >= LEAST_EQUAL


def test_mirror_images_can_be_left_out(images, tmp_path: Path) -> None:
    case = cases()["plain_3d_two_folds"]
    package = package_of(write_folder(tmp_path / "model", plans_of(**case.plans), **case.folder))
    plain = Predictor(package, device="cpu", engine="torch", tta=False).predict(images[0])
    expected = np.load(GOLDEN / "plain_3d_two_folds.npz")["label"]
    assert (plain.label[0].numpy() == expected).mean() < LEAST_EQUAL
