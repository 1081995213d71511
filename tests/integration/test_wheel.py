"""The wheel, built from the sdist, in a fresh environment: no repository, no other packages."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from outside_checkout import run

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sdist and wheel, made from what git knows."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = run("git", "ls-files", "-z", folder=REPOSITORY).split("\0")
    for name in filter(None, listed):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, source / name)
    run(sys.executable, "-m", "build", "--outdir", dist, source, folder=source)
    return dist


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel and what it asks for, as locked."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    (wheel,) = dist.glob("*.whl")
    lock = REPOSITORY / "requirements.lock"
    pip = folder / "venv" / "bin" / "pip"
    run(pip, "install", "--quiet", "--constraint", lock, wheel, folder=folder)
    return folder / "venv" / "bin"


def test_wheel_has_the_sample_the_configs_and_no_tests(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "data_manifests/hippocampus_sample.json" in names
    assert sum(name.endswith(".nii.gz") for name in names) == 80
    assert "pipelines/configs/gate.yaml" in names
    assert "segmed/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "docker/"))]


def test_demo_runs_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    place = run(
        installed / "python", "-c", "import segmed; print(segmed.__file__)", folder=tmp_path
    )
    assert Path(place.strip()).is_relative_to(installed.parent)
    run(installed / "pip", "check", folder=tmp_path)
    run(installed / "segmed", "demo", "--quick", "-o", "demo", folder=tmp_path)
    assert "missing_slice" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "no problems found" in run(installed / "segmed", "doctor", folder=tmp_path)
