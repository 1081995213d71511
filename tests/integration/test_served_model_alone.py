"""A served model in an environment that holds only what the model itself asks for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from outside_checkout import run

from pipelines.tracking.pyfunc_form import save_pyfunc
from segmed.manifest import read_manifest
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.plan.make import make_plan

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

REPOSITORY = Path(__file__).resolve().parents[2]

TWO_AT_ONCE = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import mlflow.pyfunc, pandas as pd, nibabel as nib, numpy as np
import importlib.util
model = mlflow.pyfunc.load_model(sys.argv[1])
images = sys.argv[3:]
def one(path):
    table = model.predict(pd.DataFrame({"image": [path]}), params={"output_dir": sys.argv[2]})
    return table.to_dict("records")[0]
with ThreadPoolExecutor(2) as pool:
    rows = list(pool.map(one, images * 2))
import segmed
print(json.dumps({"rows": rows, "code": segmed.__file__}))
"""


@pytest.fixture(scope="module")
def model(sample_manifest_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of the sample's plan, in MLflow's form."""
    folder = tmp_path_factory.mktemp("model")
    plan: Plan = make_plan(read_manifest(sample_manifest_path))
    options = plan.networks["unet"].options
    network = build_model(
        "unet", spatial_dims=3, in_channels=1, num_classes=plan.num_classes, **options
    )
    ModelPackage("unet", options, plan, network.state_dict()).save(folder / "package")
    return save_pyfunc(folder / "package", folder / "served")


@pytest.fixture(scope="module")
def python(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the model's own requirements."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    lock = REPOSITORY / "requirements.lock"
    wanted = model / "requirements.txt"
    run(python, "-m", "pip", "install", "--quiet", "-c", lock, "-r", wanted, folder=folder)
    return python


def test_model_loads_and_answers_two_requests_at_once(
    model: Path, python: Path, sample_manifest_path: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(sample_manifest_path)
    images = []
    for number, case in enumerate(manifest.training[:2]):
        (tmp_path / str(number)).mkdir()
        place = tmp_path / str(number) / "image.nii.gz"  # two patients, one file name
        place.write_bytes(manifest.image_paths(case)[0].read_bytes())
        images.append(place)
    (tmp_path / "run.py").write_text(TWO_AT_ONCE, encoding="utf-8")
    out = tmp_path / "out"
    printed = run(python, tmp_path / "run.py", model, out, *images, folder=tmp_path)
    answer = json.loads(printed.strip().splitlines()[-1])
    assert Path(answer["code"]).is_relative_to(model)
    assert [row["status"] for row in answer["rows"]] == ["done"] * 4, answer["rows"]
    places = [row["segmentation"] for row in answer["rows"]]
    assert places[:2] == places[2:]
    assert len(set(places)) == 2
    for place, image in zip(places[:2], images, strict=True):
        label, source = nib.load(tmp_path / place), nib.load(image)
        assert label.shape == source.shape
        np.testing.assert_allclose(label.affine, source.affine, atol=1e-5)
