"""The contract of every network, built in or registered, as checks of a builder.

A builder takes the dimensions and gives a fresh network of 2 channels and 3 classes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from segmed.errors import ModelError

Builder = Callable[[int], nn.Module]

SIZES = {2: (37, 45), 3: (13, 17, 11)}
"""No axis is a multiple of the total stride."""


def image(dims: int, batch: int = 1, size: tuple[int, ...] | None = None) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 2, *(size or SIZES[dims]))


def has_logits_on_the_input_grid(build: Builder, dims: int) -> None:
    logits = build(dims).eval()(image(dims, batch=2))
    assert logits.shape == (2, 3, *SIZES[dims])


def gives_every_parameter_a_gradient(build: Builder, dims: int) -> None:
    model = build(dims).train()
    model(image(dims)).square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key
        assert parameter.grad.isfinite().all(), key


def is_deterministic_in_evaluation(build: Builder, dims: int) -> None:
    model = build(dims).eval()
    with torch.no_grad():
        assert torch.equal(model(image(dims)), model(image(dims)))


def gives_equal_logits_after_save_and_load(build: Builder, dims: int, folder: Path) -> None:
    model = build(dims)
    model.train()(image(dims, batch=2))  # moves the running statistics
    torch.save(model.state_dict(), folder / "weights.pt")
    other = build(dims)
    nn.init.ones_(next(other.parameters()))
    other.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(model.eval()(image(dims)), other.eval()(image(dims)))


def saves_no_tensor_twice(model: nn.Module) -> None:
    tensors = [id(tensor) for tensor in model.state_dict(keep_vars=True).values()]
    assert len(tensors) == len(set(tensors))


def keeps_the_size(build: Builder, dims: int, side: int) -> None:
    size = (side, *SIZES[dims][1:])
    with torch.no_grad():
        assert build(dims).train()(image(dims, size=size)).shape[2:] == size


def refuses_another_number_of_channels(build: Builder, dims: int) -> None:
    model = build(dims)
    with pytest.raises(ModelError, match="2"):
        model(image(dims)[:, :1])
