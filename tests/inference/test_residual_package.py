"""Packages of residual networks are saved, loaded, exported and run like the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from pipelines.registry.card import card_of
from pipelines.registry.exports import WRITERS
from segmed.inference.choice import EngineRequest, make_engine
from segmed.inference.engine import TorchEngine
from segmed.models import build_model
from segmed.package import ModelPackage

CPU = torch.device("cpu")
FAMILY = ("unet", "unetpp", "unet3plus")
WINDOW = (1, 1, 16, 16, 16)


def residual_package(name: str, plan: Any) -> ModelPackage:
    options: dict[str, Any] = {
        "widths": [4, 6, 8],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "residual_blocks": [1, 2, 1],
        "deep_supervision": True,
    }
    if name != "unet3plus":
        options["decoder_convs"] = 1
    torch.manual_seed(0)
    network = build_model(
        name, spatial_dims=3, in_channels=1, num_classes=plan.num_classes, **options
    )
    return ModelPackage(name, options, plan, network.state_dict(), {"seed": 0})


@pytest.fixture(params=FAMILY)
def package(request: pytest.FixtureRequest, make_plan: Any) -> ModelPackage:
    return residual_package(request.param, make_plan(patch=(16, 16, 16)))


def test_the_card_names_the_residual_encoder(package: ModelPackage) -> None:
    title = card_of(package).splitlines()[0]
    assert title == f"# tiny: {package.architecture} with a residual encoder, 3D"


def test_a_package_comes_back_with_equal_logits(package: ModelPackage, tmp_path: Path) -> None:
    windows = torch.rand(WINDOW)
    loaded = ModelPackage.load(package.save(tmp_path / "package"))
    with torch.inference_mode():
        assert torch.equal(loaded.build()(windows), package.build()(windows))


def test_openvino_gives_the_probabilities_of_eager_torch(make_plan: Any, tmp_path: Path) -> None:
    assert_same_probabilities(residual_package("unet", make_plan(patch=(16, 16, 16))), tmp_path)


@pytest.mark.slow
def test_openvino_gives_the_probabilities_of_the_whole_family(
    package: ModelPackage, tmp_path: Path
) -> None:
    assert_same_probabilities(package, tmp_path)


def assert_same_probabilities(package: ModelPackage, cache_dir: Path) -> None:
    windows = torch.rand(WINDOW)
    fast = make_engine(package, EngineRequest("openvino", CPU, WINDOW, cache_dir))
    eager = TorchEngine(package.build(), CPU)
    torch.testing.assert_close(fast(windows), eager(windows), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    # PyTorch's own exporter calls what PyTorch deprecates; nothing of ours
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
)
def test_onnx_file_gives_the_logits_of_the_package(package: ModelPackage, tmp_path: Path) -> None:
    WRITERS["onnx"](package.save(tmp_path / "package"), package, tmp_path / "onnx")
    path = tmp_path / "onnx" / "model.onnx"
    windows = torch.rand(WINDOW)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": windows.numpy()})
    with torch.inference_mode():
        expected = package.build()(windows).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
