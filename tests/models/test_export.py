"""Every model leaves PyTorch with equal logits."""

import itertools

import numpy as np
import pytest
import torch

from segmed.models import build_model, list_models

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit where that is over 1."""

DEFAULT = {("unet", 3), ("deeplabv3plus", 2)}
"""Exported to ONNX in the default run: the fastest, and the one with most kinds of layers."""

every_model = list(itertools.product(list_models(), (2, 3)))

onnx_cases = [
    case if case in DEFAULT else pytest.param(*case, marks=pytest.mark.slow) for case in every_model
]


def model_and_image(name, dims):
    torch.manual_seed(0)
    narrow = {"aspp_width": 8} if name == "deeplabv3plus" else {}
    model = build_model(
        name, spatial_dims=dims, in_channels=2, num_classes=3, widths=(4, 6, 8), **narrow
    )
    return model.eval(), torch.randn(1, 2, *((21, 30) if dims == 2 else (9, 13, 11)))


def assert_equal_logits(got, expected):
    scale = max(1.0, float(expected.abs().max()))
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) <= TOLERANCE * scale


@pytest.mark.parametrize(("name", "dims"), every_model)
def test_exported_program_gives_equal_logits(name, dims):
    model, image = model_and_image(name, dims)
    with torch.no_grad():
        expected = model(image)
        program = torch.export.export(model, (image,))
        assert_equal_logits(program.module()(image), expected)


@pytest.mark.parametrize(("name", "dims"), onnx_cases)
@pytest.mark.filterwarnings(
    # PyTorch's own exporter calls what PyTorch deprecates; nothing of ours
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
)
def test_onnx_gives_equal_logits(name, dims):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, image = model_and_image(name, dims)
    with torch.no_grad():
        expected = model(image)
        exported = torch.onnx.export(model, (image,), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(
        exported.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert got.dtype == np.float32
    assert_equal_logits(torch.from_numpy(got), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
def test_compiled_model_gives_equal_logits(name):
    model, image = model_and_image(name, 2)
    with torch.no_grad():
        expected = model(image)
        compiled = torch.compile(model, backend="aot_eager")
        assert_equal_logits(compiled(image), expected)
