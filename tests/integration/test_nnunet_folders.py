"""Folders that nnU-Net itself trains here give the same voxels after their import.

They need a Python with nnunetv2 2.8.1, named by the variable `NNUNET_PYTHON`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from segmed.inference import Predictor
from segmed.nnunet import package_of

SCRIPT = Path(__file__).with_name("nnunet_training.py")
LEAST_EQUAL = {"float32": 0.9999, "float16": 0.99}
"""Share of equal voxels. nnU-Net's own sums in float16 differ from its sums in float32 in up to
0.4 % of the voxels of networks that were trained for so short a time."""

pytestmark = [pytest.mark.slow, pytest.mark.integration]


@pytest.fixture(scope="session")
def interpreter() -> str:
    named = os.environ.get("NNUNET_PYTHON", "")
    if not named:
        pytest.skip("NNUNET_PYTHON names no Python with nnunetv2; the project does not need it")
    return named


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["mr", "ct", "regions"])
def test_trained_folders_give_the_voxels_of_nnunet(
    name: str, interpreter: str, shared_data, tmp_path: Path
) -> None:
    words = [interpreter, str(SCRIPT), str(shared_data("hippocampus").parent), str(tmp_path), name]
    subprocess.run(
        words, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found = sorted((tmp_path / "expected").glob("*.npz"))
    assert len(found) == 4  # plain and residual, in 2D and 3D
    for file in found:
        dataset, _, model = file.stem.partition("__")
        images = sorted((tmp_path / "raw" / dataset / "imagesTr").iterdir())
        case = images[0].name[:-12]
        given = [path for path in images if path.name.startswith(f"{case}_")]
        package = package_of(tmp_path / "results" / dataset / model)
        expected = np.load(file)
        for way, tta in (("mirrored", None), ("plain", False)):
            predictor = Predictor(package, device="cpu", engine="torch", tta=tta)
            label = predictor.predict(given[0] if len(given) == 1 else given).label[0].numpy()
            for kind, least in LEAST_EQUAL.items():
                assert len(np.unique(expected[f"{kind}_{way}"])) > 1
                share = (label == expected[f"{kind}_{way}"]).mean()
                print(f"{file.stem} {way} {kind}: {share:.6f} of the voxels are equal")
                assert share >= least
