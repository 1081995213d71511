"""The device is the one asked for, or the reason why it cannot be."""

from __future__ import annotations

import pytest
import torch

from segmed.errors import UsageError
from segmed.training import choose_device

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.mark.parametrize("name", ["gpu", "tpu", "cudaa", "", "cuda:", "cuda:first", "cuda:-1"])
def test_an_unknown_device_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=f"unknown device '{name}': known are auto, cpu, cuda"):
        choose_device(name)


def test_the_cpu_computes_in_float32() -> None:
    device = choose_device("cpu")
    assert device.torch_device == torch.device("cpu")
    assert device.autocast_dtype is None
    assert not device.is_cuda
    assert "as requested" in device.why


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_that_is_not_there_is_refused_with_what_would_do(name: str) -> None:
    with pytest.raises(UsageError, match=f"device '{name}' requested.* finds no GPU.*--device cpu"):
        choose_device(name)


@without_gpu
def test_auto_explains_why_it_takes_the_cpu() -> None:
    device = choose_device("auto")
    assert device.torch_device.type == "cpu"
    assert f"{torch.get_num_threads()} threads" in device.why
    assert "no GPU is visible" in device.why
