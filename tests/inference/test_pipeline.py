"""Stages overlap within bounds, ends come in order, and one bad image stops no other."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.inference import Predictor, Segmentation
from segmed.inference.pipeline import (
    READ_AHEAD,
    WRITE_BEHIND,
    Pipeline,
    PipelineEnd,
    PipelineItem,
    in_order,
)
from segmed.io import write_label
from segmed.io.channel_files import CaseFiles

WAIT_S = 60.0


class Recording:
    """A sink that writes nothing and records the order of events."""

    format = "nifti"
    keeps_image = False

    def __init__(self, bad: str = "") -> None:
        self.events: list[tuple[str, str]] = []
        self.bad = bad

    def output_for(self, origin: str, image: MetaTensor) -> Path:
        self.events.append(("read", origin))
        if self.bad == f"name {origin}":
            raise OSError(28, "No space left on device")
        return Path(origin)

    def write(self, origin: str, output: Path, image: MetaTensor, found: Segmentation) -> str:
        self.events.append(("write", origin))
        if self.bad == f"write {origin}":
            raise KeyError(origin)
        assert found.label.shape == image.shape
        return f"{output} written"

    def order(self, event: str) -> list[str]:
        return [origin for kind, origin in self.events if kind == event]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    image = MetaTensor(torch.zeros(1, 9, 8, 7), affine=torch.eye(4).double())
    voxels = np.random.default_rng(0).integers(0, 200, (10, 9, 8, 7))
    paths = [folder / f"{number}.nrrd" for number in range(10)]
    for path, values in zip(paths, voxels, strict=True):
        write_label(path, torch.from_numpy(values), like=image)
    return paths


@pytest.fixture(scope="module")
def package(make_plan, make_package):
    return make_package(make_plan(patch=(16, 16, 16)))


@pytest.fixture(scope="module")
def predictor(package) -> Predictor:
    return Predictor(package, engine="torch")


def items(files: list[Path]) -> list[PipelineItem[str]]:
    return [PipelineItem(CaseFiles(path.stem, (path,)), path.stem) for path in files]


def test_ends_come_in_the_order_of_the_images(files: list[Path], predictor: Predictor) -> None:
    ends = list(in_order(Pipeline(predictor, Recording()).run(items(files))))
    assert [end.origin for end in ends] == [path.stem for path in files]
    assert [end.written for end in ends] == [f"{path.stem} written" for path in files]
    assert all(list(end.seconds) == ["read", "prepare", "predict", "write"] for end in ends)


@pytest.mark.parametrize("stage", ["name", "write"])
def test_failure_of_one_image_stops_no_other(
    files: list[Path], predictor: Predictor, stage: str
) -> None:
    sink = Recording(bad=f"{stage} 3")
    ends = list(in_order(Pipeline(predictor, sink).run(items(files))))
    assert [end.origin for end in ends if end.error is not None] == ["3"]
    assert len([end for end in ends if end.written]) == 9
    assert ("predict" in ends[3].seconds) is (stage == "write")  # a name spares the network


def test_reading_keeps_within_its_bound_ahead_of_the_network(
    files: list[Path], predictor: Predictor
) -> None:
    drawn: list[int] = []

    def source() -> Iterator[PipelineItem[str]]:
        for number, item in enumerate(items(files)):
            drawn.append(number)
            yield item

    for number, end in enumerate(Pipeline(predictor, Recording()).run(source())):
        end.result(WAIT_S)
        bound = number + 1 + READ_AHEAD
        while len(drawn) < min(bound, len(files)):
            time.sleep(0.001)
        time.sleep(0.02)  # time to break the bound
        assert len(drawn) <= bound


def test_results_wait_for_the_writer_within_their_bound(
    files: list[Path], predictor: Predictor
) -> None:
    gate = threading.Event()

    class Slow(Recording):
        def write(self, origin: str, output: Path, image: MetaTensor, found: Segmentation) -> str:
            assert gate.wait(WAIT_S)
            return super().write(origin, output, image, found)

    sink = Slow()
    begun: list[Future[PipelineEnd[str, str]]] = []
    consumer = threading.Thread(
        target=lambda: begun.extend(Pipeline(predictor, sink).run(items(files))), daemon=True
    )
    consumer.start()
    while len(begun) <= WRITE_BEHIND:
        time.sleep(0.001)
    time.sleep(0.3)  # time to break the bound
    assert len(begun) == WRITE_BEHIND + 1
    gate.set()
    consumer.join(WAIT_S)
    wait(begun, WAIT_S)
    assert sink.order("write") == [path.stem for path in files]


def test_result_is_there_while_the_source_still_waits_for_its_next_image(
    files: list[Path], predictor: Predictor
) -> None:
    first_is_done = threading.Event()

    def source() -> Iterator[PipelineItem[str]]:
        yield items(files)[0]
        assert first_is_done.wait(WAIT_S)  # as a watched folder between two studies
        yield items(files)[1]

    ends = []
    for end in Pipeline(predictor, Recording()).run(source()):
        end.add_done_callback(lambda _: first_is_done.set())
        ends.append(end)
    assert [end.result(WAIT_S).error for end in ends] == [None, None]


def test_one_image_at_a_time_where_memory_is_bounded(files: list[Path], package) -> None:
    sink = Recording()
    pipeline = Pipeline(Predictor(package, engine="torch", memory_gb=64.0), sink)
    assert len(list(in_order(pipeline.run(items(files[:4]))))) == 4
    assert sink.events == [
        (event, str(number)) for number in range(4) for event in ("read", "write")
    ]


def test_run_that_is_closed_early_ends_its_threads(files: list[Path], predictor: Predictor) -> None:
    sink = Recording()
    run = Pipeline(predictor, sink).run(items(files))
    first = next(run)
    run.close()
    assert first.done()
    assert sink.order("write") == ["0"]
    assert not [one for one in threading.enumerate() if one.name in {"segmed-read", "segmed-write"}]


WAITING = """
import threading
from segmed.inference.stage_threads import StageThreads
StageThreads("read").submit(threading.Event().wait)
"""


def test_stage_that_waits_for_an_image_keeps_no_finished_program_alive() -> None:
    subprocess.run([sys.executable, "-c", WAITING], check=True, timeout=WAIT_S)
