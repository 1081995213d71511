"""The device is the one asked for, or the reason why it cannot be."""

from __future__ import annotations

from contextlib import nullcontext

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


@without_gpu
@pytest.mark.parametrize(("is_native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_bfloat16_that_pytorch_would_emulate_is_not_used(
    monkeypatch: pytest.MonkeyPatch, is_native: bool, dtype: torch.dtype
) -> None:
    """PyTorch's answers stand in for two GPUs: one of before Ampere emulates bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GPU")
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext())
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: is_native or including_emulation,
    )
    assert choose_device("cuda").autocast_dtype is dtype
