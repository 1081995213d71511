"""`segmed demo --quick` with the network cut off: every part runs, and all of it is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import nibabel as nib
import numpy as np
import pytest

from segmed.geometry import same_grid
from segmed.io import grid_of, read_image, read_label

ALONE = ["unshare", "--map-root-user", "--net"]
LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket() as probe:
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
"""
"""Without a network of its own the machine still talks to itself, as Prefect's server needs."""


def cut_off(command: str) -> list[str]:
    return [*ALONE, sys.executable, "-c", f"{LOOPBACK_UP}\n{command}"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one quick demo, made in a network namespace that has nothing but loopback."""
    if shutil.which("unshare") is None or subprocess.run(cut_off(""), check=False).returncode:
        pytest.skip("this machine lets nobody make a network namespace (unshare --net)")
    out_dir = tmp_path_factory.mktemp("demo")
    command = (
        f"import sys; sys.argv[1:] = ['demo', '--quick', '-o', {str(out_dir)!r}]; "
        "from pipelines.cli import main; main()"
    )
    environment = {key: value for key, value in os.environ.items() if "MLFLOW" not in key}
    done = subprocess.run(
        cut_off(command),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=840,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return out_dir


def test_without_a_network_every_architecture_is_trained_and_scored(demo: Path) -> None:
    record = json.loads((demo / "comparison.json").read_text(encoding="utf-8"))
    assert set(record["architectures"]) == {
        "fcn8s",
        "unet",
        "unetpp",
        "unet3plus",
        "deeplabv3plus",
    }
    for entry in record["architectures"].values():
        assert entry["parameters"] > 100_000
        assert set(entry["labels"]) == {"anterior", "posterior", "mean"}
        assert {"dice", "iou", "f1", "hd_mm", "hd95_mm"} <= set(entry["labels"]["anterior"])
        assert entry["labels"]["anterior"]["dice"]["n"] == 7


def test_champion_resolves_to_the_winner(demo: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{demo / 'mlflow.db'}")
    version = client.get_model_version_by_alias("hippocampus", "champion")
    winner = json.loads((demo / "comparison.json").read_text(encoding="utf-8"))["winner"]
    assert version.tags["segmed.architecture"] == winner


def test_archive_ends_with_six_done_and_the_gap_named(demo: Path) -> None:
    outcomes = json.loads((demo / "archive" / "outcomes.json").read_text(encoding="utf-8"))
    studies = outcomes["studies"] if isinstance(outcomes, dict) else outcomes
    assert sorted(entry["status"] for entry in studies) == ["done"] * 6 + ["refused"]
    (refused,) = (entry for entry in studies if entry["status"] == "refused")
    assert "missing_slice" in refused["reason"]
    assert "mm" in refused["reason"]


def test_each_segmentation_lies_on_the_grid_of_its_input(demo: Path) -> None:
    sources = [
        *(demo / "archive_source").glob("*.nii.gz"),
        *(demo / "archive_source").glob("study[123]"),
    ]
    assert len(sources) == 6
    found = [read_label(path) for path in (demo / "archive").rglob("*.nii.gz")]
    assert len(found) == 6
    for source in sources:
        grid = grid_of(read_image(source))
        matches = [label for label in found if same_grid(grid_of(label), grid)]
        assert matches, source
        assert any(grid_of(label).orientation == grid.orientation for label in matches)


def test_nifti_affine_is_the_input_s_to_the_bit(demo: Path) -> None:
    affines = [nib.load(path).affine for path in (demo / "archive").rglob("*.nii.gz")]
    for source in (demo / "archive_source").glob("*.nii.gz"):
        assert any(np.array_equal(nib.load(source).affine, affine) for affine in affines)


def test_report_is_one_page_that_asks_for_nothing(demo: Path) -> None:
    page = (demo / "report.html").read_text(encoding="utf-8")
    assert "fcn8s" in page
    assert "missing_slice" in page
    assert 'src="http' not in page
    last = page.rpartition("<main")[2].rpartition("</main>")[0].strip()
    assert (
        last.removesuffix("</section>").rstrip().endswith(f"review {demo / 'archive'}</code></pre>")
    )
    assert '<link rel="stylesheet"' not in page
