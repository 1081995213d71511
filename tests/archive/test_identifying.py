"""Studies that are identified elsewhere and ahead: the same studies, in the order of the source."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from segmed.archive import FolderSource, NotImage, Study
from segmed.archive.identifying import (
    Answer,
    Question,
    ThreadIdentifier,
    answer_to,
    studies_of,
)
from segmed.archive.study import StudySource


@pytest.fixture
def source(
    tmp_path: Path, write_nifti: Callable[..., Path], write_dicom: Callable[..., list[Path]]
) -> FolderSource:
    for seed in range(5):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
        write_dicom(tmp_path / f"archive/series{seed}", seed)
    (tmp_path / "archive/notes.txt").write_text("no image", encoding="utf-8")
    return FolderSource(tmp_path / "archive")


@dataclass
class LateIdentifier:
    """Answers the newest question first, and only when as many wait as it allows."""

    ahead: int = 3
    waiting: list[tuple[Question, Future[Answer]]] = field(default_factory=list)
    most: int = 0

    def ask(self, question: Question, source: StudySource) -> Future[Answer]:
        future: Future[Answer] = Future()
        self.waiting.append((question, future))
        self.most = max(self.most, len(self.waiting))
        return future

    def answer(self) -> None:
        question, future = self.waiting.pop()
        try:
            future.set_result(answer_to(question, None))
        except OSError as error:
            future.set_exception(error)


def all_of(source: FolderSource, late: LateIdentifier) -> list[Study | NotImage]:
    """All studies; an answer comes whenever the run has to wait for one."""
    found: list[Study | NotImage] = []
    for item in studies_of(source, late):
        if item is None:
            late.answer()
        else:
            found.append(item)
    return found


def test_studies_come_in_the_order_of_the_source_however_late_the_answers(
    source: FolderSource,
) -> None:
    late = LateIdentifier()
    found = all_of(source, late)
    assert found == list(source.studies())
    assert sum(isinstance(item, Study) for item in found) == 10
    assert late.most <= late.ahead + 1, "more is in memory than was asked for"


def test_threads_identify_what_the_source_does(source: FolderSource) -> None:
    threads = ThreadIdentifier(2)
    items = [item for item in studies_of(source, threads) if item is not None]
    threads.close()
    assert items == list(source.studies())


def test_a_file_that_went_away_is_one_failed_study(source: FolderSource) -> None:
    late = LateIdentifier()
    lost = source.root / "3.nii.gz"
    found = []
    for item in studies_of(source, late):
        lost.unlink(missing_ok=True)
        if item is None:
            late.answer()
        elif isinstance(item, Study):
            found.append(item)
    [bad] = [study for study in found if study.fault is not None]
    assert (bad.fault.reason, bad.environment, bad.place) == ("no_access", True, "3.nii.gz")
    assert len(found) == 10


def test_an_unexpected_fault_of_an_answer_ends_the_run_and_is_not_hidden(
    source: FolderSource,
) -> None:
    class Broken(LateIdentifier):
        def answer(self) -> None:
            self.waiting.pop()[1].set_exception(ValueError("a fault of ours"))

    with pytest.raises(ValueError, match="a fault of ours"):
        all_of(source, Broken())
