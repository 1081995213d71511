"""Engines give eager PyTorch's labels, and `auto` is one rule without timing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from monai.data import MetaTensor

from pipelines.registry.exports import WRITERS
from segmed.errors import ModelError, UsageError
from segmed.inference import Predictor, choice, openvino_engine
from segmed.inference.choice import EngineRequest, make_engine
from segmed.inference.engine import Engine, TorchEngine
from segmed.inference.openvino_engine import Conversion, OpenVinoEngine
from segmed.inference.vocabulary import ENGINES, engine_named
from segmed.models import build_model, list_models
from segmed.plan import Topology, plan_networks

CPU = torch.device("cpu")
MAX_LABELS_CHANGED = 1e-4
"""Share of labels in which an engine may differ from eager float32."""


def smooth_windows(shape: tuple[int, ...]) -> torch.Tensor:
    coarse = torch.rand(*shape[:2], *[6] * (len(shape) - 2))
    mode = "trilinear" if len(shape) == 5 else "bilinear"
    return torch.nn.functional.interpolate(coarse, shape[2:], mode=mode)


@pytest.fixture(scope="module")
def package(make_plan, make_package):
    return make_package(make_plan(spatial_dims=2, patch=(16, 16), spacing_mm=(1.0, 1.0)))


def test_openvino_gives_the_probabilities_of_eager_torch_for_batches_of_any_size(
    package, tmp_path: Path
) -> None:
    eager = TorchEngine(package.build(), CPU)
    request = EngineRequest("openvino", CPU, (3, 1, 16, 16), tmp_path)
    first = make_engine(package, request)
    again = make_engine(package, request)
    assert list(tmp_path.rglob(f"{package.hash}-1x1x16x16.xml"))
    for count in (3, 1):
        windows = smooth_windows((count, 1, 16, 16))
        for engine in (first, again):
            torch.testing.assert_close(engine(windows), eager(windows), rtol=0, atol=1e-4)


def test_small_volume_that_comes_alone_is_convolved_with_a_copy_of_itself(
    make_plan, make_package
) -> None:
    network = make_package(make_plan(patch=(16, 16, 16))).build()
    window = smooth_windows((1, 1, 16, 16, 16))
    with torch.inference_mode():
        expected = torch.softmax(network(window), dim=1)
    engine = TorchEngine(network, CPU)
    seen: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    torch.testing.assert_close(engine(window), expected, rtol=0, atol=1e-5)
    assert seen == [2]


@pytest.mark.slow
def test_a_job_outlives_a_compiler_that_dies_and_keeps_nothing_of_it(
    package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "_TRY", "import os; os.abort()")
    conversion = Conversion(package.hash, (1, 1, 16, 16), tmp_path)
    with pytest.raises(ModelError, match="its compiler ended with -6 in a trial"):
        OpenVinoEngine(package.build, conversion)
    assert not conversion.is_cached


@pytest.mark.slow
def test_a_conversion_that_says_something_else_is_not_used(
    package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying = openvino_engine._TRY.replace("[0])\n", "[0][:, ::-1])\n")
    assert lying != openvino_engine._TRY
    monkeypatch.setattr(openvino_engine, "_TRY", lying)
    conversion = Conversion(package.hash, (1, 1, 16, 16), tmp_path)
    with pytest.raises(ModelError, match="values that differ"):
        OpenVinoEngine(package.build, conversion)
    assert not conversion.is_cached


def test_a_conversion_whose_files_changed_is_done_anew(package, tmp_path: Path) -> None:
    conversion = Conversion(package.hash, (1, 1, 16, 16), tmp_path)
    windows = smooth_windows((1, 1, 16, 16))
    expected = OpenVinoEngine(package.build, conversion)(windows).clone()
    assert conversion.is_cached
    assert conversion.path is not None
    weights = conversion.path.with_suffix(".bin")
    sound = weights.read_bytes()
    weights.unlink()
    assert not conversion.is_cached
    weights.write_bytes(bytes(len(sound)))
    assert not conversion.is_cached
    torch.testing.assert_close(OpenVinoEngine(package.build, conversion)(windows), expected)
    assert weights.read_bytes() == sound


def test_auto_is_openvino_from_the_first_image_and_eager_where_it_cannot_run(
    package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = EngineRequest("auto", CPU, (2, 1, 16, 16), tmp_path)
    assert make_engine(package, request).name == "openvino"

    def die(*_: object, **_streams: int) -> Engine:
        raise ModelError("OpenVINO cannot run the network")

    monkeypatch.setattr(choice, "OpenVinoEngine", die)
    assert make_engine(package, request).name == "torch"
    monkeypatch.setattr(choice, "has_openvino", lambda: False)
    assert make_engine(package, request).name == "torch"


def test_earlier_name_of_auto_is_accepted_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    assert engine_named("steady") == "auto"
    assert "engine 'steady' is now called 'auto'" in caplog.text
    caplog.clear()
    assert [engine_named(name) for name in ENGINES] == list(ENGINES)
    assert not caplog.text
    with pytest.raises(UsageError, match="auto, compile, int8, openvino, torch"):
        engine_named("steam")


def test_openvino_on_a_gpu_is_refused(package) -> None:
    request = EngineRequest("openvino", torch.device("cuda"), (1, 1, 16, 16))
    with pytest.raises(UsageError, match="CPU"):
        make_engine(package, request)


@pytest.mark.slow
def test_predictor_labels_are_the_same_with_every_cpu_engine(
    make_plan, make_package, tmp_path: Path
) -> None:
    package = make_package(make_plan(patch=(16, 16, 16)))
    image = MetaTensor(smooth_windows((1, 1, 24, 20, 18))[0], affine=torch.eye(4).double())
    eager = Predictor(package, engine="torch").predict(image).label.numpy()
    fast = Predictor(package, engine="openvino", cache_dir=tmp_path).predict(image)
    assert np.mean(fast.label.numpy() != eager) <= MAX_LABELS_CHANGED


@pytest.mark.slow
def test_onnx_file_gives_the_logits_of_the_package(package, tmp_path: Path) -> None:
    WRITERS["onnx"](package.save(tmp_path / "package"), package, tmp_path / "onnx")
    path = tmp_path / "onnx" / "model.onnx"
    windows = smooth_windows((1, 1, 16, 16))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": windows.numpy()})
    np.testing.assert_allclose(logits, package.build()(windows).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", list_models())
def test_openvino_changes_at_most_one_label_in_ten_thousand(name: str, dims: int) -> None:
    levels = 4
    strides = [(1,) * dims, *[(2,) * dims] * (levels - 1)]
    topology = Topology(kernels=tuple([(3,) * dims] * levels), strides=tuple(strides))
    options = plan_networks(
        topology, patch_size=(48,) * dims, spacing_mm=(1.0,) * dims, size="small"
    )[name].options
    torch.manual_seed(1)
    network = build_model(name, spatial_dims=dims, in_channels=1, num_classes=3, **options)
    network = network.eval().requires_grad_(False)
    shape = (1, 1, *((256, 256) if dims == 2 else (48, 48, 48)))
    windows = smooth_windows(shape)
    fast = OpenVinoEngine(lambda: network, Conversion(name, shape))(windows).argmax(1)
    changed = (fast != TorchEngine(network, CPU)(windows).argmax(1)).float().mean()
    assert float(changed) <= MAX_LABELS_CHANGED


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning")  # its own use
def test_compiled_network_gives_the_labels_of_eager_torch(package) -> None:
    windows = smooth_windows((1, 1, 16, 16))
    compiled = make_engine(package, EngineRequest("compile", CPU, (1, 1, 16, 16)))
    eager = TorchEngine(package.build(), CPU)
    torch.testing.assert_close(compiled(windows), eager(windows), rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_gpu_changes_at_most_five_labels_in_a_thousand(package) -> None:
    windows = smooth_windows((4, 1, 16, 16))
    fast = make_engine(package, EngineRequest("auto", torch.device("cuda"), (4, 1, 16, 16)))
    eager = TorchEngine(package.build(), CPU)
    for _ in range(2):
        changed = fast(windows).argmax(1).cpu() != eager(windows).argmax(1)
        assert float(changed.float().mean()) <= 5e-3
