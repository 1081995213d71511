"""Several threads share one predictor, as a server's requests do, and never mix their images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.inference import Predictor


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_images_of_four_threads_get_the_labels_that_they_get_alone(
    engine: str, make_plan, make_package
) -> None:
    package = make_package(make_plan(patch=(16, 16, 16)))
    predictor = Predictor(package, device="cpu", engine=engine)
    generator = torch.Generator().manual_seed(0)
    images = [
        MetaTensor(torch.randn(1, 40, 24, 20, generator=generator), affine=torch.eye(4))
        for _ in range(8)
    ]
    alone = [predictor.predict(image).label.numpy() for image in images]
    assert len({label.tobytes() for label in alone}) == len(images)
    with ThreadPoolExecutor(4) as pool:
        together = [found.label.numpy() for found in pool.map(predictor.predict, images * 3)]
    for number, label in enumerate(together):
        np.testing.assert_array_equal(label, alone[number % len(images)])
