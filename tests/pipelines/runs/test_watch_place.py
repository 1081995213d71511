"""A watch as flows run it: the device is reserved while there is work, and only then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

sys.path.append(str(Path(__file__).parents[2] / "archive"))  # for tiny_model.py
sys.path.append(str(Path(__file__).parents[2] / "archive/watch"))  # for storm.py

import storm
from tiny_model import tiny_package

from pipelines.runs.watching import WatchJob, open_watch
from segmed.io.dicom.write import Identity, write_series


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    voxels = np.random.default_rng(9).integers(0, 900, (1, 12, 12, 8)).astype(np.float32)
    volume = MetaTensor(torch.from_numpy(voxels), affine=torch.eye(4, dtype=torch.float64))
    return write_series(tmp_path / "sent", volume, identity=Identity(patient_id="P"))


def test_place_is_taken_while_there_is_work_and_given_back(
    tmp_path: Path, study: list[Path]
) -> None:
    torch.set_num_threads(1)
    events: list[str] = []

    @contextmanager
    def place() -> Iterator[None]:
        events.append("taken")
        yield
        events.append("given back")

    port = storm.free_port()
    job = WatchJob(
        f"dimse://{storm.TITLE}@127.0.0.1:{port}",
        tmp_path / "out",
        (str(tiny_package().save(tmp_path / "package")),),
        quiet_s=0.2,
        engine="torch",
    )
    with open_watch(job, place=place) as (watch, where):
        assert where == f"{storm.TITLE}@127.0.0.1:{port}"
        assert list(watch.step()) == []
        assert events == []
        assert storm.send(port, study) == study
        ended = []
        storm.wait_for(lambda: bool(ended.extend(watch.step()) or events[1:]))
    assert events == ["taken", "given back"]
    assert [(name, outcome.status) for name, outcome in ended] == [("watch", "done")]
