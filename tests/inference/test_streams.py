"""Small images pass the network side by side, with the labels that they get alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from segmed.inference import Predictor
from segmed.inference.choice import EngineRequest
from segmed.inference.observing import CaseObserver
from segmed.inference.pipeline import Pipeline, PipelineItem, in_order
from segmed.inference.segmentation import Segmentation
from segmed.inference.streams import MOST_STREAMS, Places, streams_for
from segmed.io.channel_files import CaseFiles
from segmed.package import ModelPackage

WAIT_S = 60.0
SMALL, LARGE = (24, 20, 20), (80, 64, 64)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads of PyTorch, on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def predictor(two_threads: None, make_plan, make_package) -> Predictor:
    """A U-Net in OpenVINO whose windows are small."""
    predictor = Predictor(make_package(make_plan(patch=(16, 16, 16))), engine="openvino")
    assert predictor.streams == 2
    return predictor


def image_of(shape: tuple[int, ...], seed: int = 0) -> MetaTensor:
    generator = torch.Generator().manual_seed(seed)
    return MetaTensor(torch.randn(1, *shape, generator=generator), affine=torch.eye(4))


def files_of(folder: Path, shapes: list[tuple[int, ...]]) -> list[PipelineItem[int]]:
    """Images of noise, the number of each as its origin."""
    found = []
    for number, shape in enumerate(shapes):
        values = np.random.default_rng(number).integers(0, 200, shape).astype(np.int16)
        path = folder / f"{number}.nii.gz"
        nib.Nifti1Image(values, np.eye(4)).to_filename(path)
        found.append(PipelineItem(CaseFiles(str(number), (path,)), number))
    return found


class Kept:
    """A sink that keeps the label maps, by number of the image."""

    format = "nifti"
    keeps_image = False

    def __init__(self) -> None:
        self.labels: dict[int, bytes] = {}

    def output_for(self, origin: int, image: MetaTensor) -> Path:
        return Path(f"{origin}.nii.gz")

    def write(self, origin: int, output: Path, image: MetaTensor, found: Segmentation) -> int:
        self.labels[origin] = np.asarray(found.label).tobytes()
        return origin


class Meeting:
    """An engine whose calls wait until two of them are there."""

    def __init__(self, predictor: Predictor) -> None:
        (self._engine,) = predictor.engines
        self.name, self.device, self.streams = "meeting", self._engine.device, 2
        self._both = threading.Barrier(2)

    def __call__(self, windows: Tensor) -> Tensor:
        self._both.wait(WAIT_S)
        return self._engine(windows)


@pytest.mark.parametrize(
    ("window", "threads", "streams"),
    [
        ((40, 56, 40), 1, 1),
        ((40, 56, 40), 2, 2),
        ((256, 256), 2, 2),
        ((40, 56, 40), 64, MOST_STREAMS),
        ((96, 96, 96), 8, 1),
        ((512, 512), 8, 1),
    ],
)
def test_streams_go_by_window_and_threads(
    window: tuple[int, ...], threads: int, streams: int
) -> None:
    assert streams_for(window, threads) == streams


def test_bounded_memory_has_one_stream(two_threads: None) -> None:
    shape = (1, 1, 16, 16, 16)
    assert EngineRequest("auto", torch.device("cpu"), shape).streams == 2
    assert EngineRequest("auto", torch.device("cpu"), shape, bounds_memory=True).streams == 1


def test_streams_give_the_labels_of_one_stream(
    predictor: Predictor, tmp_path: Path, make_plan, make_package
) -> None:
    shapes = [SMALL, (9, 30, 12), LARGE, (16, 16, 16), SMALL, (40, 20, 24), SMALL]
    images = files_of(tmp_path, shapes)
    side_by_side, alone = Kept(), Kept()
    ends = list(in_order(Pipeline(predictor, side_by_side).run(images)))
    assert [end.origin for end in ends] == list(range(len(shapes)))
    assert [end.error for end in ends] == [None] * len(shapes)
    package = make_package(make_plan(patch=(16, 16, 16)))
    one_stream = Predictor(package, engine="openvino", memory_gb=64.0)
    assert one_stream.streams == 1
    list(in_order(Pipeline(one_stream, alone).run(images)))
    assert side_by_side.labels == alone.labels
    assert len(set(alone.labels.values())) == len(shapes)


def test_two_small_images_are_in_the_network_at_once(predictor: Predictor, tmp_path: Path) -> None:
    predictor.engines = [Meeting(predictor)]
    images = files_of(tmp_path, [(16, 16, 16)] * 4)
    ends = list(in_order(Pipeline(predictor, Kept()).run(images)))
    assert [end.error for end in ends] == [None] * 4


def test_large_image_is_alone_in_the_network(predictor: Predictor) -> None:
    large, small = (predictor.prepare(image_of(shape)) for shape in (LARGE, SMALL))
    assert predictor.streams_for(large) == 1
    assert predictor.streams_for(small) == 2


def test_ready_result_goes_on_while_the_source_waits(predictor: Predictor, tmp_path: Path) -> None:
    images, first_is_done = files_of(tmp_path, [SMALL, SMALL]), threading.Event()

    def source() -> Iterator[PipelineItem[int]]:
        yield images[0]
        assert first_is_done.wait(WAIT_S)
        yield images[1]

    ends = []
    for end in Pipeline(predictor, Kept()).run(source()):
        end.add_done_callback(lambda _: first_is_done.set())
        ends.append(end)
    assert [end.result(WAIT_S).error for end in ends] == [None, None]


def test_run_that_is_closed_ends_the_threads_of_the_network(
    predictor: Predictor, tmp_path: Path
) -> None:
    run = Pipeline(predictor, Kept()).run(files_of(tmp_path, [SMALL] * 6))
    next(run)
    run.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("segmed-")]


def test_features_of_images_side_by_side_are_those_of_each_alone(
    predictor: Predictor,
) -> None:
    predictor.gather_features()
    prepared = [predictor.prepare(image_of(SMALL, seed)) for seed in range(6)]
    alone = [predictor.segment(image).features for image in prepared]
    with ThreadPoolExecutor(2) as pool:
        together = [found.features for found in pool.map(predictor.segment, prepared)]
    assert together == alone
    assert len({str(features) for features in alone}) == len(alone)


def test_observer_adds_the_seconds_of_its_image_alone(
    make_package: ModelPackage, make_plan
) -> None:
    one, other = (CaseObserver(make_plan().encoding) for _ in range(2))
    one.timed(lambda windows: time.sleep(0.01) or windows)(torch.zeros(1))
    assert one.network_s >= 0.01
    assert other.network_s == 0.0


def test_place_of_all_waits_for_those_that_are_taken() -> None:
    places, events = Places(2), []
    small_is_in, may_leave = threading.Event(), threading.Event()

    def small() -> None:
        with places.taken(1):
            small_is_in.set()
            assert may_leave.wait(WAIT_S)
            events.append("small")

    thread = threading.Thread(target=small)
    thread.start()
    assert small_is_in.wait(WAIT_S)
    with places.taken(1):
        events.append("beside")
    may_leave.set()
    with places.taken(2):
        events.append("all")
    thread.join()
    assert events == ["beside", "small", "all"]
