"""Kernels that OpenVINO generates for an int8 network are used where its compiler survives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segmed.acceleration.network import Quantiser, trial
from segmed.errors import ModelError
from segmed.inference.engine import softmax
from segmed.inference.int8_units import has_bf16_units
from segmed.inference.openvino_engine import compile_hints, complete_network
from segmed.models import build_model

WINDOW = (1, 1, 32, 32, 32)
OPTIONS = {
    "unet": {"widths": [8, 16], "strides": [[1] * 3, [2] * 3], "kernels": [[3] * 3] * 2},
    "deeplabv3plus": {},
}


def quantiser(architecture: str, folder: Path) -> Quantiser:
    torch.manual_seed(0)
    network = build_model(
        architecture, spatial_dims=3, in_channels=1, num_classes=3, **OPTIONS[architecture]
    ).eval()
    windows = np.random.default_rng(0).standard_normal((2, *WINDOW[1:])).astype(np.float32)
    return Quantiser(complete_network(network, softmax), windows, folder)


def test_int8_network_of_a_unet_has_generated_kernels(tmp_path: Path) -> None:
    made = quantiser("unet", tmp_path)
    assert made.quantise(made.outer_layers).generated_kernels


@pytest.mark.parametrize(("architecture", "survives"), [("unet", True), ("deeplabv3plus", False)])
def test_model_that_kills_the_compiler_runs_without(
    architecture: str, survives: bool, tmp_path: Path
) -> None:
    """OpenVINO 2026.4 dies of DeepLabv3+ in float32 with generated kernels."""
    quantiser(architecture, tmp_path)
    generated_kernels, maps = trial(tmp_path / "float32.xml", tmp_path / "noise.npy")
    assert generated_kernels == survives
    assert maps.shape == (1, 3, *WINDOW[2:])
    torch.testing.assert_close(maps.sum(1), torch.ones(1, *WINDOW[2:]))


def test_model_that_runs_neither_way_is_an_error(tmp_path: Path) -> None:
    quantiser("unet", tmp_path)
    broken = tmp_path / "float32.xml"
    broken.write_text(broken.read_text(encoding="utf-8")[:500], encoding="utf-8")
    with pytest.raises(ModelError, match="cannot run the network"):
        trial(broken, tmp_path / "noise.npy")


def test_hints_differ_in_the_generated_kernels_alone() -> None:
    with_them, without = (compile_hints(generated_kernels=given) for given in (True, False))
    assert set(without.items()) - set(with_them.items()) == {("SNIPPETS_MODE", "DISABLE")}
    assert with_them.items() < without.items()


def test_bfloat16_is_asked_of_processors_with_units_alone() -> None:
    plain, asked = (compile_hints(generated_kernels=True, bf16=given) for given in (False, True))
    precision = "bf16" if has_bf16_units() else "f32"
    assert asked == {**plain, "INFERENCE_PRECISION_HINT": precision}
