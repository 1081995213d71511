"""Windows of prepared training cases, from which the ranges of a network's numbers are found."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segmed.inference import Predictor
from segmed.inference.sliding import pad_to_window, window_grid
from segmed.io.scratch import scratch_space
from segmed.manifest import Case, Manifest
from segmed.preprocessing.prepared_dataset import PreparedDataset

MOST_CASES = 16
"""Training cases that windows are drawn from."""

Windows = npt.NDArray[np.float32]


def calibration_windows(
    predictor: Predictor, manifest: Manifest, cases: Sequence[Case], *, count: int, seed: int
) -> tuple[Windows, int]:
    """Draw windows as the predictor would walk over training cases.

    Every second window of a case is drawn from those that contain a structure, if there are any.

    Args:
        predictor: The model, whose plan prepares the cases and places the windows.
        manifest: The image set of the cases.
        cases: Training cases, at least one.
        count: Windows to draw.
        seed: Seed of the draw.

    Returns:
        The windows, `[count, C, *window]`, and the number of cases they are from.

    Raises:
        ManifestError: A case cannot be read; the message names it.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(cases))[:MOST_CASES]
    chosen = [cases[number] for number in order]
    each = ceil(count / len(chosen))
    windows: list[Windows] = []
    with scratch_space() as cache:
        dataset = PreparedDataset(manifest, predictor.plan, cache, cases=chosen)
        for number in range(len(chosen)):
            item = dataset[number]
            image = item["image"].as_tensor()
            label = item["label"].as_tensor() if "label" in item else image[:1] * 0
            windows += _drawn(predictor, image, label, each, rng)
    return np.stack(windows[:count]), len(chosen)


def _drawn(
    predictor: Predictor, image: Tensor, label: Tensor, count: int, rng: np.random.Generator
) -> list[Windows]:
    recipe = predictor.recipe(tuple(image.shape[1:]))
    padded, _ = pad_to_window(image, recipe.window)
    labels, _ = pad_to_window(label, recipe.window)
    boxes = [
        tuple(slice(low, low + edge) for low, edge in zip(corner, recipe.window, strict=True))
        for corner in window_grid(padded, recipe).corners()
    ]
    filled = [box for box in boxes if bool((labels[(slice(None), *box)] > 0).any())]
    found = []
    for number in range(count):
        pool = filled if number % 2 and filled else boxes
        window = padded[(slice(None), *pool[int(rng.integers(len(pool)))])].numpy()
        shape = (len(image), *predictor.plan.patch_size)  # a 2D network takes slices
        found.append(np.array(window, np.float32).reshape(shape))
    return found
