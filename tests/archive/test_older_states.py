"""Ledgers of schema version 4 and before call a refused study `quarantined`; today's say `refused`.

`older/version4/ledger.sql` is a ledger as version 4 left it: two images done, one cut short.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.runs.metrics import ArchiveFigures
from segmed.archive import Ledger, archive_status, retry_archive
from segmed.archive.ledger.tables import SCHEMA_VERSION, STATES

OLDER = Path(__file__).parent / "older"


@pytest.fixture(params=["version1", "version4"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An output folder with a ledger of an older version."""
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        connection.executescript((OLDER / request.param / "ledger.sql").read_text(encoding="utf-8"))
    return tmp_path


def states_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return sorted(row[0] for row in connection.execute("SELECT state FROM studies"))


def figures(out: Path) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in ArchiveFigures(out).collect()
        for sample in metric.samples
    }


def test_readers_say_refused_and_leave_the_file_as_it_is(out: Path) -> None:
    content = (out / "ledger.sqlite").read_bytes()
    status = archive_status(out)
    assert set(status.counts) == set(STATES)
    assert (status.counts["done"], status.counts["refused"]) == (2, 1)
    assert [end.status for end in status.refused_and_failed] == ["refused"]
    found = figures(out)
    assert found["segmed_studies", "refused"] == 1
    assert found["segmed_refused_and_failed", "truncated"] == 1
    assert not any("quarantined" in key for key in found)
    assert (out / "ledger.sqlite").read_bytes() == content


def test_writer_converts_the_state_and_every_other_column_stays(out: Path) -> None:
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        before = list(ledger.entries())
    assert states_in(out / "ledger.sqlite") == ["done", "done", "quarantined"]
    with Ledger(out / "ledger.sqlite") as ledger:
        assert list(ledger.entries()) == before
    assert states_in(out / "ledger.sqlite") == ["done", "done", "refused"]
    [copy] = out.glob("ledger.sqlite.version*")
    assert states_in(copy) == ["done", "done", "quarantined"]


def test_refused_study_of_an_older_version_is_tried_again_on_request(out: Path) -> None:
    assert retry_archive(out) == 1
    assert archive_status(out).counts["pending"] == 1


def test_ledger_of_today_does_not_know_the_old_state(out: Path) -> None:
    Ledger(out / "ledger.sqlite").close()
    with closing(sqlite3.connect(out / "ledger.sqlite")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("UPDATE studies SET state = 'quarantined'")
