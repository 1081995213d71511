"""The way through a GPU, run on a CPU without graphs: same labels as eager float32, and its limits.

Networks that run out of memory are real modules which refuse a batch beyond their room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.inference import Predictor
from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.device_memory import (
    fitting_batch,
    forecast_device_memory,
    full_batch,
    usable_bytes,
)
from segmed.inference.engine import TorchEngine
from segmed.inference.forecast import foresee_files
from segmed.inference.sliding import WindowRecipe
from segmed.io import grid_of
from segmed.package import ModelPackage
from tests.gpu.limits import Room

CPU = torch.device("cpu")


class Wide(nn.Module):
    """A network whose activations exceed float16."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, windows: Tensor) -> Tensor:
        logits: Tensor = self.network(windows)
        return logits * self.factor / self.factor


@pytest.fixture
def package(make_plan: Callable[..., object], make_package: Callable[..., ModelPackage]):
    return make_package(make_plan(patch=(16, 16, 16), spacing_mm=(1.0, 1.2, 1.0)))


def image_of(shape: tuple[int, ...], seed: int = 0) -> MetaTensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, *[6] * len(shape), generator=generator)
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    return MetaTensor(
        nn.functional.interpolate(coarse, shape, mode=mode)[0], affine=torch.eye(4).double()
    )


def on_device(package: ModelPackage, network: nn.Module | None = None, **options: object):
    """A predictor whose engine is that of a GPU."""
    predictor = Predictor(package, device="cpu", engine="torch", **options)
    axes = package.plan.inference.mirror_axes if predictor.tta else ()
    engine = CudaEngine(network or package.build(), CPU, mirror_axes=axes)
    predictor.batch = 8
    predictor._use([engine])
    return predictor


@pytest.mark.parametrize("tta", [False, True])
def test_labels_are_those_of_eager_float32(package: ModelPackage, tta: bool) -> None:
    image = image_of((40, 24, 20))
    exact = Predictor(package, device="cpu", engine="torch", tta=tta).predict(
        image, probabilities=True
    )
    found = on_device(package, tta=tta).predict(image, probabilities=True)
    assert found.label.shape == exact.label.shape
    assert np.mean(found.label.numpy() != exact.label.numpy()) <= 5e-3
    assert found.probs is not None
    assert exact.probs is not None
    torch.testing.assert_close(found.probs, exact.probs, rtol=0, atol=5e-3)


@pytest.mark.parametrize("shape", [(24, 40), (9, 30)])
def test_flat_images_go_the_same_way(
    make_plan: Callable[..., object],
    make_package: Callable[..., ModelPackage],
    shape: tuple[int, ...],
) -> None:
    plan = make_plan(spatial_dims=2, patch=(16, 16), spacing_mm=(1.0, 1.0))
    package = make_package(plan)
    image = image_of(shape)
    exact = Predictor(package, device="cpu", engine="torch").predict(image)
    found = on_device(package).predict(image)
    assert np.mean(found.label.numpy() != exact.label.numpy()) <= 5e-3


def test_engine_takes_batches_of_any_size_and_feeds_each(package: ModelPackage) -> None:
    engine, exact = CudaEngine(package.build(), CPU), TorchEngine(package.build(), CPU)
    for count in (1, 3, 4, 2):
        windows = torch.stack([image_of((16, 16, 16), seed).as_tensor() for seed in range(count)])
        torch.testing.assert_close(engine(windows), exact(windows), rtol=0, atol=5e-3)


@pytest.mark.parametrize(("room", "counts"), [(4, 4), (2, 2), (1, 1)])
def test_batch_is_halved_until_it_fits_and_stays_so(
    package: ModelPackage, room: int, counts: int, caplog: pytest.LogCaptureFixture
) -> None:
    engine = CudaEngine(Room(package.build(), room), CPU)
    exact = TorchEngine(package.build(), CPU)
    windows = torch.stack([image_of((16, 16, 16), seed).as_tensor() for seed in range(8)])
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(engine(windows), exact(windows), rtol=0, atol=5e-3)
    assert f": {counts} at once" in caplog.messages[-1]
    caplog.clear()
    engine(windows)
    assert not caplog.messages


def test_no_room_for_one_window_is_an_error_of_memory(package: ModelPackage) -> None:
    predictor = on_device(package, Room(package.build(), 0))
    with pytest.raises(torch.OutOfMemoryError):
        predictor.predict(image_of((20, 20, 20)))


def test_memory_that_runs_out_while_blending_costs_speed_and_no_label(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Windows one by one, then blending on the CPU: the image is segmented again each time."""
    image = image_of((40, 24, 20))
    expected = on_device(package).predict(image).label.numpy()
    predictor = on_device(package)
    path = predictor.path
    assert path is not None
    whole = predictor._label_map
    tried: list[tuple[int, bool]] = []

    def scarce(prepared, *, probabilities):
        tried.append((path.batch, path.blends_on_cpu))
        if not path.blends_on_cpu:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(prepared, probabilities=probabilities)

    monkeypatch.setattr(predictor, "_label_map", scarce)
    np.testing.assert_array_equal(predictor.predict(image).label.numpy(), expected)
    assert tried == [(8, False), (4, False), (2, False), (1, False), (1, True)]
    assert "blended on the CPU" in caplog.messages[-1]


def test_overflow_of_float16_is_noticed_and_runs_in_float32(package: ModelPackage) -> None:
    image = image_of((24, 20, 20))
    predictor = on_device(package, Wide(package.build(), 1e6))
    expected = Predictor(package, device="cpu", engine="torch").predict(image).label.numpy()
    found = predictor.predict(image).label.numpy()
    assert np.mean(found != expected) <= 1e-4
    (engine,) = predictor.engines
    assert isinstance(engine, CudaEngine)
    assert engine.precision is torch.float32
    broken = on_device(package, Wide(package.build(), float("inf")))
    with pytest.raises(ModelError, match="not finite, also in float32"):
        broken.predict(image)


def test_graph_that_ignores_its_input_is_refused(package: ModelPackage) -> None:
    """Captured on another GPU's stream, a graph stays empty: every window gets the first answer."""

    class Empty(CudaEngine):
        def _uncaptured(self, source: Tensor):
            held = super()._uncaptured(source)
            held.graph.replay = lambda: None
            return held

    engine = Empty(package.build(), CPU)
    with pytest.raises(ModelError, match="the captured graph on cpu differs from the network"):
        engine(torch.rand(2, 1, 16, 16, 16))


def test_weights_of_an_engine_are_its_own(package: ModelPackage) -> None:
    network = package.build()
    engine = CudaEngine(network, CPU)
    windows = torch.rand(2, 1, 16, 16, 16)
    before = engine(windows).clone()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(engine(windows), before)


def test_threads_share_a_device_and_never_mix_their_images(package: ModelPackage) -> None:
    predictor = on_device(package)
    images = [image_of((40, 24, 20), seed) for seed in range(4)]
    alone = [predictor.predict(image).label.numpy() for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = [found.label.numpy() for found in pool.map(predictor.predict, images * 2)]
    for number, label in enumerate(together):
        np.testing.assert_array_equal(label, alone[number % len(images)])


@pytest.mark.parametrize(
    ("full", "free", "window", "blend", "batch"),
    [
        (8, 100, 10, 0, 8),  # all of a full batch fits
        (8, 100, 10, 50, 4),  # the rest of a segmentation takes half of it
        (8, 100, 10, 70, 2),
        (8, 100, 10, 95, 8),  # blending does not fit beside one window: it goes to the CPU
        (8, 15, 10, 0, 1),
        (8, 5, 10, 0, 1),  # tried all the same, and refused by the GPU
        (6, 1000, 10, 0, 4),  # a power of two
        (1, 1000, 10, 0, 1),
    ],
)
def test_batch_follows_the_free_memory(
    full: int, free: int, window: int, blend: int, batch: int
) -> None:
    assert fitting_batch(full, free=free, window_bytes=window, blend=blend) == batch


def test_forecast_counts_every_part_of_a_large_volume() -> None:
    """512 x 512 x 600 at 21 classes, brought to 333 x 333 x 400 voxels."""
    recipe = WindowRecipe((128, 128, 128), batch=4, buffer_dim=2)
    need = forecast_device_memory(
        (333, 333, 400), (512, 512, 600), recipe, channels=1, num_classes=21, window_bytes=10**9
    )
    assert need.window == 4 * 10**9
    assert need.volume == 4 * 333 * 333 * 400
    assert need.buffer == 3 * 4 * 21 * 333 * 333 * 128
    assert need.pieces == 4 * 512 * 2**20
    assert need.label == 512 * 512 * 600
    assert need.total == need.window + need.blend
    assert "on the GPU (window 3815 MB, volume 169 MB" in str(need)
    assert full_batch((128, 128, 128)) == 4
    assert full_batch((256, 256, 256)) == 1


def test_forecast_of_an_image_is_given_where_there_is_a_gpu(package: ModelPackage) -> None:
    image = image_of((40, 24, 20))
    assert Predictor(package, device="cpu", engine="torch").forecast_device(grid_of(image)) is None
    need = on_device(package).forecast_device(grid_of(image))
    assert need is not None
    assert need.label == 40 * 24 * 20
    assert usable_bytes(CPU) > need.total


def test_dry_run_gives_the_memory_on_the_gpu_too(package: ModelPackage, tmp_path: Path) -> None:
    image = image_of((40, 24, 20))
    path = tmp_path / "image.nii"
    nib.save(nib.Nifti1Image(image[0].numpy(), np.eye(4)), path)
    (found,) = foresee_files(on_device(package), [path])
    assert found.status == "ready"
    assert "GB on the GPU (window" in found.memory
    (found,) = foresee_files(Predictor(package, device="cpu", engine="torch"), [path])
    assert "on the GPU" not in found.memory
