"""The work of building a manifest grows with its files, and with nothing else."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segmed.errors import ManifestError
from segmed.io.label_counts import LabelFacts, label_facts_of
from segmed.manifest import build_manifest, census_lines, label_values
from segmed.manifest import content as content_module

NUM_CASES = 150


@pytest.fixture
def pictures(tmp_path: Path, shared_data: Callable[[str], Path]) -> Path:
    """Copies of one electron micrograph and its mask, cut small."""
    source = shared_data("isbi2012")
    for kind, folder in (("images", "images"), ("labels", "masks")):
        (tmp_path / "set" / folder).mkdir(parents=True)
        with Image.open(source / kind / "0.png") as picture:
            small = picture.crop((0, 0, 40, 30))
        small.save(tmp_path / "small.png")
        for number in range(NUM_CASES):
            shutil.copyfile(tmp_path / "small.png", tmp_path / f"set/{folder}/c{number}.png")
    return tmp_path / "set"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Files of each batch that a process of its own counts."""
    batches: list[list[str]] = []
    real = label_values.count_isolated

    def noted(paths: Sequence[Path]) -> list[LabelFacts | None]:
        batches.append([path.name for path in paths])
        return real(paths)

    monkeypatch.setattr(label_values, "count_isolated", noted)
    return batches


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that are read one by one."""
    read: list[str] = []
    real = label_values.read_label

    def noted(path: Path, **options: Any) -> Any:
        read.append(path.name)
        return real(path, **options)

    monkeypatch.setattr(label_values, "read_label", noted)
    return read


def test_labels_are_counted_once_by_few_processes_and_digested_once(
    pictures: Path,
    counted: list[list[str]],
    alone: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digested: Counter[str] = Counter()
    real_digest = content_module.sha256_of_file

    def sha256_of_file(path: Path) -> str:
        digested[str(path)] += 1
        return real_digest(path)

    monkeypatch.setattr(content_module, "sha256_of_file", sha256_of_file)
    manifest = build_manifest(pictures)
    census_lines(manifest)
    assert len(manifest.training) == NUM_CASES
    files = sorted(path.name for path in (pictures / "masks").iterdir())
    assert sorted(name for batch in counted for name in batch) == files
    assert len(counted) == -(-NUM_CASES // label_values.BATCH)
    assert alone == []
    assert set(digested.values()) == {1}
    assert len(digested) == 2 * NUM_CASES


def test_a_torn_file_of_a_batch_is_named(
    pictures: Path, counted: list[list[str]], alone: list[str]
) -> None:
    torn = pictures / "masks/c77.png"
    torn.write_bytes(torn.read_bytes()[:60])
    with pytest.raises(ManifestError, match=r"label c77\.png|label masks/c77\.png"):
        build_manifest(pictures)
    assert "c77.png" in alone


def test_a_batch_whose_process_dies_is_read_file_by_file(
    pictures: Path, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    died = [None] * label_values.BATCH
    monkeypatch.setattr(label_values, "count_isolated", lambda paths: died[: len(paths)])
    monkeypatch.setattr(label_values, "BATCH", 5)
    for path in sorted((pictures / "masks").iterdir())[6:]:
        path.unlink()
        (pictures / "images" / path.name).unlink()
    manifest = build_manifest(pictures)
    assert len(manifest.training) == len(alone) == 6
    assert [label.value for label in manifest.labels] == [255]


@pytest.mark.parametrize(
    "values",
    [[0, 0, 3, 3, 65535], [0, 70000, 70000], [-1, 0, 2], [5], np.arange(9).reshape(3, 3)],
)
def test_counts_agree_with_a_sort(values: Any) -> None:
    label = np.asarray(values, dtype=np.int32)
    found = label_facts_of(label)
    assert found.voxels == dict(
        zip(*map(np.ndarray.tolist, np.unique(label, return_counts=True)), strict=True)
    )
    steps = label[..., 1:] != label[..., :-1]
    assert found.roughness == (steps.mean() if steps.size else 0.0)
    assert LabelFacts.from_record(found.as_record()) == found


def test_large_maps_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmed.io.label_counts.PIECE", 7)
    label = np.random.default_rng(0).integers(0, 300, (5, 6, 7)).astype(np.uint16)
    expected = np.unique(label, return_counts=True)
    assert label_facts_of(label).voxels == dict(zip(*map(np.ndarray.tolist, expected), strict=True))
