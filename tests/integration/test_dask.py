"""An archive over two Dask workers on a real scheduler and Prefect server."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dask_cluster import DaskCluster, Watch
from dask_runs import done, ends, environment, files, run_seconds, segment
from servers import Server
from slow_line import STUDIES
from slow_pacs import images_for_pacs, slow_pacs
from tiny_data import hippocampus_package

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def env(prefect: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return environment(prefect, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hippocampus_package().save(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def images(shared_data: Callable[[str], Path]) -> list[Path]:
    return images_for_pacs(shared_data("hippocampus"))


@pytest.fixture(scope="module")
def pacs(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with slow_pacs(images, tmp_path_factory.mktemp("pacs")) as address:
        yield address


def test_two_workers_give_over_a_slow_line_what_one_gives(
    pacs: str,
    images: list[Path],
    package: Path,
    env: dict[str, str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    (tmp_path / "few").mkdir()
    for path in images[:4]:
        shutil.copy(path, tmp_path / "few")
    seconds = {}
    for number in (1, 2):
        cluster = DaskCluster(tmp_path / f"dask{number}", env)
        try:
            cluster.start(number)
            with Watch(cluster) as watch:
                out = tmp_path / f"out{number}"
                words = ("--cluster", cluster.address)
                few = str(tmp_path / "few")  # every worker has the model after this
                done(segment(few, package, out, env, *words), out)
                done(segment(pacs, package, out, env, *words), out)
        finally:
            cluster.stop()
        assert all(len(pids) == 1 for pids in watch.loaders.values()), watch.loaders
        assert not watch.ledgers, "a worker opened the ledger"
        seconds[number] = run_seconds(out)
    alone = tmp_path / "alone"
    for source in (str(tmp_path / "few"), pacs):
        done(segment(source, package, alone, env), alone)
    assert {state for state, _, _ in ends(alone).values()} == {"done"}
    assert len(ends(alone)) == STUDIES + 4
    assert ends(tmp_path / "out1") == ends(tmp_path / "out2") == ends(alone)
    assert files(tmp_path / "out1") == files(tmp_path / "out2") == files(alone)
    ratio = seconds[1] / seconds[2]
    print(json.dumps({"one_s": seconds[1], "two_s": seconds[2], "ratio": ratio}))
    record_property("ratio", ratio)


def test_worker_killed_in_mid_run_loses_nothing(
    pacs: str, package: Path, env: dict[str, str], tmp_path: Path
) -> None:
    cluster = DaskCluster(tmp_path / "dask", env)
    out, calm = tmp_path / "out", tmp_path / "calm"
    try:
        cluster.start(2)
        running = segment(pacs, package, out, env, "--cluster", cluster.address)
        deadline = time.monotonic() + 200
        while len(files(out)) < 3:
            assert running.poll() is None, out.with_suffix(".log").read_text(encoding="utf-8")[
                -3000:
            ]
            assert time.monotonic() < deadline, cluster.logs()
            time.sleep(0.05)
        cluster.kill_worker(0)
        assert len(files(out)) < STUDIES, "killed too late to prove anything"
        done(running, out)
    finally:
        cluster.stop()
    done(segment(pacs, package, calm, env), calm)
    assert ends(out) == ends(calm)
    assert files(out) == files(calm)
    assert {attempts for _, _, attempts in ends(out).values()} == {1}
