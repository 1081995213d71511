"""The kill test in full: 300 studies, 30 of them broken in ten ways, 50 kills."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "archive"))

import breakages
import killing
from tiny_model import tiny_package

from segmed.archive import FolderSource, RunOptions, segment_archive
from segmed.errors import ServiceError
from segmed.inference.predictor import Predictor
from segmed.io import read_image
from segmed.io.dicom.write import Identity, write_series
from segmed.package import ModelPackage

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_NIFTI, NUM_DICOM, NUM_BROKEN, KILLS = 220, 50, 30, 50


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(patch=32, edge_mm=4.0).save(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def predictor(package: Path) -> Predictor:
    torch.set_num_threads(1)
    return Predictor(ModelPackage.load(package), device="cpu", engine="torch")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, shared_data: Callable[[str], Path]) -> Path:
    """Hippocampus images as NIfTI files and as DICOM series, sound and broken."""
    root = tmp_path_factory.mktemp("kill") / "archive"
    data = shared_data("hippocampus")
    images = sorted(
        path
        for part in ("imagesTr", "imagesTs")
        for path in (data / part).glob("*.nii.gz")
        if not path.name.startswith(".")
    )
    for path in images[:NUM_NIFTI]:
        (root / "volumes").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, root / "volumes" / path.name)
    for number in range(NUM_DICOM):
        write(root / f"series/{number}", images[number], f"SOUND-{number}")
    ways = [*breakages.NIFTI, *breakages.DICOM]
    for number in range(NUM_BROKEN):
        way, image = ways[number % len(ways)], images[60 + number]
        if way in breakages.NIFTI:
            path = root / "broken" / f"{number}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(image, path)
            way(path)
        else:
            way(write(root / f"broken/{number}", image, f"BROKEN-{number}"))
    return root


def write(folder: Path, image: Path, patient: str) -> list[Path]:
    return write_series(folder, read_image(image), identity=Identity(patient_id=patient))


def test_archive_survives_fifty_kills(tmp_path: Path, archive: Path, package: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    killing.run_to_its_end(archive, package, calm)
    ends = killing.ends(calm)
    states = [state for state, _, _ in ends.values()]
    assert states.count("done") == NUM_NIFTI + NUM_DICOM
    assert states.count("refused") == NUM_BROKEN - 2  # three empty files are one content
    expected = {*breakages.NIFTI.values(), *breakages.DICOM.values()}
    assert {reason for _, reason, _ in ends.values() if reason} == expected

    died = killing.run_and_kill(
        archive, package, killed, calm=calm, kills=KILLS, longest_s=8.0, seed=7
    )
    assert died >= KILLS // 2
    killing.run_to_its_end(archive, package, killed)
    assert killing.ends(killed) == ends
    assert killing.files(killed) == killing.files(calm)
    in_hand = 8  # studies that a killed process may have had in hand
    assert killing.attempts(killed) <= killing.attempts(calm) + KILLS * in_hand


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB, on which the ledger's write-ahead log alone takes 2."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounting.returncode != 0:
        pytest.skip("a small disk cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_disk_that_is_filled_and_emptied_leaves_nothing_half_written(
    tmp_path: Path, archive: Path, predictor: Predictor, small_disk: Path
) -> None:
    source = FolderSource(archive / "volumes")
    calm = tmp_path / "calm"
    unguarded = RunOptions(min_free_bytes=0, limit=40)
    list(segment_archive(source, predictor=predictor, out_dir=calm, options=unguarded))
    out = small_disk / "out"
    few = RunOptions(min_free_bytes=0, limit=10)
    list(segment_archive(source, predictor=predictor, out_dir=out, options=few))
    filler = small_disk / "filler"
    fill(filler)
    told = []
    try:
        for outcome in segment_archive(
            source, predictor=predictor, out_dir=out, options=RunOptions(min_free_bytes=0, limit=25)
        ):
            told.append(outcome.reason.split(":")[0])
    except (ServiceError, OSError) as error:
        told.append(str(error))
    assert any("full" in text or "space" in text for text in told)
    filler.unlink()
    rest = RunOptions(min_free_bytes=0, limit=30)
    list(segment_archive(source, predictor=predictor, out_dir=out, options=rest))
    whole, found = killing.files(calm), killing.files(out)
    assert len(found) == 40
    assert found == whole


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
        write_for_ever(stream)


def write_for_ever(stream: BinaryIO) -> None:
    while True:
        stream.write(bytes(4096))
