"""The ledger: states, schema version, one writer, and its cost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from segmed.archive import Ledger, Study
from segmed.archive.study import key_of
from segmed.errors import ServiceError, UsageError


def study(number: int) -> Study:
    return Study(f"{number:064x}", "nifti", f"volume{number}.nii.gz", ((Path("x"),),))


def met(ledger: Ledger, number: int, run: int) -> str:
    key = key_of(study(number).content, "package")
    ledger.enter(study(number), key, "package", settings="nifti", run=run)
    return key


def test_interrupted_work_is_pending_again_and_other_states_stay(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run = ledger.begin_run("package")
        keys = [met(ledger, number, run) for number in range(4)]
        for key in keys[:3]:
            ledger.start(key, run=run)
        ledger.finish(keys[1], delivered="there")
        ledger.record_failure(keys[2], "truncated", "it ends early", refused=True)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_run("package")
        states = [ledger.entry(key).state for key in keys]
        assert states == ["pending", "done", "refused", "pending"]
        assert ledger.entry(keys[0]).attempts == 1
        assert ledger.entry(keys[2]).reason == "truncated"


def test_other_schema_version_is_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(UsageError, match="schema version 9, this segmed reads 1 to 5"):
        Ledger(path)
    with pytest.raises(UsageError, match="schema version 9"):
        Ledger(path, writer=False)


def test_one_writer_and_any_number_of_readers(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as writer:
        met(writer, 1, writer.begin_run("package"))
        writer.commit()
        with pytest.raises(UsageError, match="another run"):
            Ledger(path)
        with Ledger(path, writer=False) as reader:
            assert reader.counts()["pending"] == 1
    with Ledger(path):
        pass  # the lock went with its holder


def test_reader_of_no_ledger_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no ledger"):
        Ledger(tmp_path / "ledger.sqlite", writer=False)


def test_ledger_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run = ledger.begin_run("package")
        ledger._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(ServiceError, match="cannot be written"):
            met(ledger, 1, run)


def test_file_that_is_no_ledger_is_told_so_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_text(
        "something else, and long enough to be taken for pages of a database" * 20, encoding="utf-8"
    )
    content = path.read_bytes()
    with pytest.raises(ServiceError, match="no ledger"):
        Ledger(path)
    assert path.read_bytes() == content


def test_entries_may_be_written_while_they_are_walked(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run = ledger.begin_run("package")
        for number in range(600):
            met(ledger, number, run)
        walked = 0
        for entry in ledger.entries(state="pending"):
            ledger.finish(entry.key, delivered="there")
            walked += 1
        assert walked == 600
        assert ledger.counts()["done"] == 600


def test_what_is_in_hand_and_ends_are_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, Ledger(path, writer=False) as reader:
        run = ledger.begin_run("p")
        for number in range(2):
            ledger.enter(study(number), f"key{number}", "p", settings="nifti", run=run)
            assert reader.counts()["running"] == number  # meeting a study alone may wait
            ledger.start(f"key{number}", run=run)
            assert reader.counts()["running"] == number + 1
        ledger.note_output("key0", "a", "0", seconds=1.0, measures={}, is_final=True)
        assert reader.counts()["done"] == 1


def test_first_run_is_the_one_that_a_run_continued(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        first, second, third = (ledger.begin_run("p") for _ in range(3))
        assert ledger.first_run_of(third) == first
        ledger.end_run(first)
        assert (ledger.first_run_of(third), ledger.first_run_of(first)) == (second, first)


def test_cost_of_a_study_does_not_grow_with_the_ledger(tmp_path: Path) -> None:
    """Counted in tens of instructions of SQLite's machine, which a busy processor leaves alone."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run = ledger.begin_run("package")
        count = 0

        def count_instructions() -> None:
            nonlocal count
            count += 1

        ledger._connection.set_progress_handler(count_instructions, 10)
        costs = []
        for part in range(4):
            before = count
            for number in range(200 * part, 200 * (part + 1)):
                key = met(ledger, number, run)
                ledger.done_by_another(study(number).content, "package", "nifti")
                ledger.start(key, run=run)
                ledger.note_output(key, "a", "0", seconds=1.0, measures={}, is_final=True)
            costs.append((count - before) / 200)
    assert 0 < costs[-1] < 1.5 * costs[0]
