"""Scoring of many small raster files: few processes read them, each of them files of one origin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sandbox_processes import SandboxProcesses

from pipelines.comparing.label_names import labels_of
from segmed.errors import ImageError
from segmed.evaluation import ScoringSink, compare_folders
from segmed.io import batches, read_image
from segmed.manifest import LabelClass, build_manifest, read_reference
from segmed.metrics import CaseScores

NUM_CASES = 50
LABELS = (LabelClass(name="cell", value=255),)


@pytest.fixture
def folders(tmp_path: Path, shared_data: Callable[[str], Path]) -> tuple[Path, Path]:
    """Tiles of masks, moved by a pixel as predictions, and the tiles themselves."""
    source = shared_data("isbi2012") / "labels"
    for name, move in (("predictions", 1), ("references", 0)):
        (tmp_path / name).mkdir()
        for number in range(NUM_CASES):
            left, top = number % 10 * 48, number // 10 * 48
            with Image.open(source / f"{number % 30}.png") as picture:
                tile = np.asarray(picture.crop((left + move, top, left + move + 40, top + 40)))
            tile = tile.copy()
            tile[0, 0] = 7 if number == 9 else tile[0, 0]
            Image.fromarray(tile).save(tmp_path / name / f"c{number:02d}.png")
    return tmp_path / "predictions", tmp_path / "references"


def test_scores_of_folders_are_those_of_single_reads_and_sides_share_no_process(
    folders: tuple[Path, Path], sandbox: SandboxProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = compare_folders(*folders, labels=LABELS)
    assert len(sandbox.requests) <= 2 * 4
    for request in sandbox.requests:
        assert len({Path(path).parent for path, _ in request["batch"]}) == 1
    sandbox.requests.clear()
    monkeypatch.setattr(batches, "LARGEST_BYTES", 0)
    alone = compare_folders(*folders, labels=LABELS)
    assert len(sandbox.requests) == 2 * NUM_CASES
    assert found.table.equals(alone.table)
    assert found.strays == alone.strays
    assert {(one.case, one.side, one.value) for one in found.strays} == {
        ("c09", "prediction", 7),
        ("c09", "reference", 7),
    }


@pytest.mark.parametrize("side", [0, 1])
def test_a_file_that_ends_every_process_is_named(
    folders: tuple[Path, Path], sandbox: SandboxProcesses, side: int
) -> None:
    sandbox.fatal.add(folders[side] / "c17.png")
    with pytest.raises(ImageError, match=r"c17\.png: its decoder crashed"):
        compare_folders(*folders, labels=LABELS)


def test_values_of_a_folder_of_references_are_counted_together(
    folders: tuple[Path, Path], sandbox: SandboxProcesses
) -> None:
    assert [label.value for label in labels_of(None, folders[1])] == [7, 255]
    assert len(sandbox.requests) == 1


def test_references_of_scored_cases_are_read_together(
    folders: tuple[Path, Path], sandbox: SandboxProcesses, tmp_path: Path
) -> None:
    for name, folder in zip(("images", "masks"), folders, strict=True):
        folder.rename(tmp_path / name)
    manifest = build_manifest(tmp_path)
    images = {case.id: read_image(manifest.image_paths(case)[0]) for case in manifest.training}
    expected = {
        case.id: read_reference(manifest, tmp_path / str(case.label)) for case in manifest.training
    }
    sandbox.requests.clear()
    scores = CaseScores(manifest.encoding)
    sink = ScoringSink(manifest, tmp_path / "out", scores, cases=manifest.training)
    for case in manifest.training:
        sink.output_for(case, images[case.id])
        assert np.array_equal(sink._references[case.id], expected[case.id])
    assert sandbox.files == [[Path(str(case.label)).name for case in manifest.training]]
