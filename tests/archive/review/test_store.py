"""Opinions, corrections and holds: kept, never overwritten, one reviewer at a time."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from segmed.archive.review.judgement import judge_study
from segmed.archive.review.store import HOLD_S, ReviewStore, StudyHeldError
from segmed.errors import ServiceError, UsageError

KEY = "a" * 64


@pytest.fixture
def clock() -> list[float]:
    """A time that the test moves."""
    return [1000.0]


@pytest.fixture
def store(tmp_path: Path, clock: list[float]) -> ReviewStore:
    """An empty file."""
    return ReviewStore(tmp_path, clock=lambda: clock[0])


def saved(store: ReviewStore, author: str = "Ada", session: str | None = None) -> int:
    """A correction that is on disk."""
    number = len(store.corrections(KEY)) + 1
    one = store.begin_correction(
        KEY, author, f"{number}.nii.gz", origin="page", base="", session=session
    )
    store.finish_correction(one.id, "f" * 64)
    return one.id


def test_study_is_held_by_one_page_until_it_stops_renewing(
    store: ReviewStore, clock: list[float]
) -> None:
    store.hold(KEY, "Ada", "page-1")
    with pytest.raises(StudyHeldError, match="Ada has this study open"):
        store.hold(KEY, "Bob", "page-2")
    clock[0] += HOLD_S - 1
    store.hold(KEY, "Ada", "page-1")
    clock[0] += HOLD_S - 1
    assert store.holds()[KEY].author == "Ada"
    clock[0] += 2
    assert store.holds() == {}
    store.hold(KEY, "Bob", "page-2")
    with pytest.raises(StudyHeldError, match="Bob has"):
        saved(store, session="page-1")
    with pytest.raises(StudyHeldError, match="nothing was saved"):
        store.add_opinion(KEY, "Ada", "accepted", session="page-1")
    assert store.corrections(KEY, unfinished=True) == store.opinions(KEY) == []


def test_released_study_is_free_and_a_stranger_cannot_release_it(store: ReviewStore) -> None:
    store.hold(KEY, "Ada", "page-1")
    store.release(KEY, "page-2")
    assert KEY in store.holds()
    store.release(KEY, "page-1")
    assert store.hold(KEY, "Bob", "page-2").author == "Bob"


def test_opinions_and_corrections_have_author_and_time_and_survive(
    store: ReviewStore, clock: list[float], tmp_path: Path
) -> None:
    number = saved(store)
    store.add_opinion(KEY, " Ada ", "accepted", "tail was short", correction=number)
    clock[0] += 5
    store.add_opinion(KEY, "Bob", "", "which scanner?")
    again = ReviewStore(tmp_path)
    first, second = again.opinions(KEY)
    assert (first.author, first.made, first.verdict, first.comment, first.correction) == (
        "Ada", 1000.0, "accepted", "tail was short", number
    )  # fmt: skip
    assert (second.verdict, second.made) == ("", 1005.0)
    (correction,) = again.corrections()
    assert (correction.author, correction.made, correction.origin) == ("Ada", 1000.0, "page")


@pytest.mark.parametrize(
    ("author", "verdict", "comment", "correction", "words"),
    [
        ("", "accepted", "", None, "1 to 80 printable"),
        ("a\nb", "accepted", "", None, "printable"),
        ("x" * 81, "accepted", "", None, "1 to 80"),
        ("Ada", "good", "", None, "unknown verdict 'good'; known are accepted, rejected"),
        ("Ada", "", "  ", None, "are both empty"),
        ("Ada", "accepted", "x" * 4001, None, "at most 4000"),
        ("Ada", "accepted", "", 77, "no correction 77"),
    ],
)
def test_invalid_opinion_is_refused_and_leaves_nothing(
    store: ReviewStore, author: str, verdict: str, comment: str, correction: int | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        store.add_opinion(KEY, author, verdict, comment, correction=correction)
    assert store.opinions() == []


def test_unfinished_correction_is_neither_shown_nor_accepted(store: ReviewStore) -> None:
    one = store.begin_correction(KEY, "Ada", "x.nii.gz", origin="page", base="")
    assert store.corrections(KEY) == []
    assert [row.id for row in store.corrections(unfinished=True)] == [one.id]
    with pytest.raises(UsageError):
        store.add_opinion(KEY, "Ada", "accepted", correction=one.id)


def test_judgement_counts_the_last_verdict_of_each_reviewer(store: ReviewStore) -> None:
    def state() -> tuple[str, int | None]:
        found = judge_study(store.opinions(KEY))
        return found.state, found.correction

    assert state() == ("open", None)
    store.add_opinion(KEY, "Ada", "", "a comment is no verdict")
    assert state() == ("open", None)
    store.add_opinion(KEY, "Ada", "rejected")
    assert state() == ("rejected", None)
    first, second = saved(store), saved(store, "Bob")
    store.add_opinion(KEY, "Ada", "accepted", correction=first)
    assert state() == ("accepted", first)
    store.add_opinion(KEY, "Bob", "rejected")  # the model's result, not the correction
    assert state() == ("accepted", first)
    store.add_opinion(KEY, "Bob", "accepted", correction=second)
    assert judge_study(store.opinions(KEY)).why == (
        f"Ada accepted correction {first}; Bob accepted correction {second}"
    )
    assert state() == ("disputed", None)
    store.add_opinion(KEY, "Ada", "accepted", correction=second)
    assert state() == ("accepted", second)
    store.add_opinion(KEY, "Ada", "rejected", correction=second)
    assert state() == ("disputed", None)


def test_file_of_a_later_version_and_one_that_is_no_database_are_refused(tmp_path: Path) -> None:
    ReviewStore(tmp_path)
    with sqlite3.connect(tmp_path / "review.sqlite") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(UsageError, match="schema version 9"):
        ReviewStore(tmp_path)
    (tmp_path / "review.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ServiceError, match="no database"):
        ReviewStore(tmp_path)


def test_file_is_readable_to_its_owner_alone(store: ReviewStore, tmp_path: Path) -> None:
    assert (tmp_path / "review.sqlite").stat().st_mode & 0o77 == 0
