"""A served model in an environment that holds only what the model itself asks for."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from outside_checkout import HIDDEN, run
from servers import Server, free_port

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


@pytest.fixture
def images(sample_manifest_path: Path, tmp_path: Path) -> list[Path]:
    """Two patients' images of one file name."""
    manifest = read_manifest(sample_manifest_path)
    found = []
    for number, case in enumerate(manifest.training[:2]):
        (tmp_path / str(number)).mkdir()
        place = tmp_path / str(number) / "image.nii.gz"
        place.write_bytes(manifest.image_paths(case)[0].read_bytes())
        found.append(place)
    return found


@pytest.fixture
def scoring(model: Path, python: Path, tmp_path: Path) -> Iterator[str]:
    """Address of `mlflow models serve`, run by the fresh environment."""
    port = free_port()
    command = [python, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    # An empty variable is none to Python and to MLflow, and hides that of this checkout.
    bare = dict.fromkeys(HIDDEN, "") | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    address = f"http://127.0.0.1:{port}"
    log = tmp_path / "serve.log"
    server = Server([str(word) for word in command], f"{address}/ping", log, bare)
    server.start()
    yield address
    server.stop()


def require_two_segmentations(rows: list[dict[str, Any]], images: list[Path], root: Path) -> None:
    """Fail unless each image has a segmentation of its own, on its own grid."""
    assert [row["status"] for row in rows] == ["done"] * len(rows), rows
    places = [row["segmentation"] for row in rows]
    assert len(set(places)) == 2
    for place, image in zip(places, images, strict=True):
        label, source = nib.load(root / place), nib.load(image)
        assert label.shape == source.shape
        np.testing.assert_allclose(label.affine, source.affine, atol=1e-5)


def test_model_loads_and_answers_two_requests_at_once(
    model: Path, python: Path, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text(TWO_AT_ONCE, encoding="utf-8")
    out = tmp_path / "out"
    printed = run(python, tmp_path / "run.py", model, out, *images, folder=tmp_path)
    answer = json.loads(printed.strip().splitlines()[-1])
    assert Path(answer["code"]).is_relative_to(model)
    places = [row["segmentation"] for row in answer["rows"]]
    assert places[:2] == places[2:]
    require_two_segmentations(answer["rows"][:2], images, tmp_path)
    require_two_segmentations(answer["rows"][2:], images, tmp_path)


def test_mlflow_models_predict_segments_the_images_of_a_file(
    model: Path, python: Path, images: list[Path], tmp_path: Path
) -> None:
    table = {"columns": ["image"], "data": [[str(image)] for image in images]}
    asked = {"dataframe_split": table, "params": {"output_dir": str(tmp_path / "out")}}
    (tmp_path / "input.json").write_text(json.dumps(asked), encoding="utf-8")
    command = [python, "-m", "mlflow", "models", "predict", "-m", model]
    command += ["-i", tmp_path / "input.json", "-o", tmp_path / "answer.json"]
    run(*command, "--env-manager", "local", folder=tmp_path)
    answer = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    require_two_segmentations(answer["predictions"], images, tmp_path)


def test_mlflow_models_serve_answers_two_requests_at_once(
    scoring: str, images: list[Path], tmp_path: Path
) -> None:
    def ask(image: Path) -> dict[str, Any]:
        table = {"columns": ["image"], "data": [[str(image)]]}
        asked = {"dataframe_split": table, "params": {"output_dir": str(tmp_path / "served")}}
        request = urllib.request.Request(
            f"{scoring}/invocations",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            rows: list[dict[str, Any]] = json.load(answer)["predictions"]
        return rows[0]

    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(ask, images))
    require_two_segmentations(rows, images, tmp_path)
