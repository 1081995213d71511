"""Opens of the files of one `predict`: sniffed once, read once."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from segmed.archive import FolderSource, Study
from segmed.inference import Predictor, predict_files
from segmed.io.head import sniff

MOST_OPENS = 2
"""One to see what the file is, one to read it."""


class _OpenCounter:
    """Counts opens by file name while it is active; an audit hook stays until the process ends."""

    def __init__(self) -> None:
        self.is_active = False
        self.names: Counter[str] = Counter()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_active and event == "open" and isinstance(arguments[0], str | bytes):
            self.names[Path(os.fsdecode(arguments[0])).name] += 1


@pytest.fixture(scope="module")
def counter() -> _OpenCounter:
    return _OpenCounter()


@pytest.fixture
def opens(counter: _OpenCounter) -> Iterator[Counter[str]]:
    """Number of times each file is opened in this process, by its name."""
    counter.is_active = True
    yield counter.names
    counter.is_active = False
    counter.names.clear()


@pytest.fixture(scope="module")
def predictor(make_plan: Any, make_package: Any) -> Predictor:
    return Predictor(make_package(make_plan(spacing_mm=(2.0, 2.0, 2.0))))


def write(path: Path, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).normal(size=(12, 10, 14)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


@pytest.mark.parametrize("name", ["a.nii.gz", "b.nii"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_a_volume_is_opened_twice_by_predict(
    tmp_path: Path, predictor: Predictor, opens: Counter[str], name: str, *, is_folder: bool
) -> None:
    path = write(tmp_path / "in" / name)
    opens.clear()
    (outcome,) = predict_files(
        predictor, [path.parent if is_folder else path], tmp_path / "out", names="source"
    )
    assert outcome.status == "done"
    assert opens[name] == MOST_OPENS


def test_an_archive_sniffs_and_hashes_a_file_once(tmp_path: Path, opens: Counter[str]) -> None:
    write(tmp_path / "a.nii.gz")
    opens.clear()
    assert [type(study) for study in FolderSource(tmp_path).studies()] == [Study]
    assert opens["a.nii.gz"] == MOST_OPENS


def test_a_head_is_sniffed_again_when_its_file_has_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii")
    head = sniff(path)
    assert sniff(head) is head
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert sniff(head).format == "png"
