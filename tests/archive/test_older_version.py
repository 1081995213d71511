"""Ledger, package and outputs of segmed 0.1.0 (older/version1), continued by today's version.

The folder holds a ledger, outputs and package of schema version 1 as that version wrote them, from
two images of the bundled sample and a third cut short; the ledger as SQL, for people to read.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from segmed.archive import FolderSource, Ledger, archive_status, segment_archive
from segmed.archive.ledger.migrations import STEPS
from segmed.archive.ledger.tables import SCHEMA_VERSION
from segmed.errors import ServiceError
from segmed.inference import Predictor
from segmed.io.digest import sha256_of_file
from segmed.manifest import read_manifest
from segmed.package import ModelPackage
from segmed.plan import read_plan

OLDER = Path(__file__).parent / "older" / "version1"
SAMPLE = Path(__file__).resolve().parents[2] / "data_manifests" / "hippocampus_sample.json"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The archive as it was, and its output folder as version 1 left it."""
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    manifest = read_manifest(SAMPLE)
    paths = [manifest.image_paths(case)[0] for case in manifest.test[:3]]
    for path in paths[:2]:
        shutil.copy(path, scans)
    content = paths[2].read_bytes()
    (scans / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    shutil.copytree(OLDER / "segmentations", out / "segmentations")
    with closing(sqlite3.connect(out / "ledger.sqlite")) as connection:
        connection.executescript((OLDER / "ledger.sql").read_text(encoding="utf-8"))
    return tmp_path


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def rows(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM studies ORDER BY key").fetchall()


def in_todays_words(row: tuple[object, ...]) -> tuple[object, ...]:
    return tuple("refused" if value == "quarantined" else value for value in row)


def test_archive_of_version_1_goes_on_and_nothing_is_segmented_again(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = place / "out"
    outputs = {path: path.read_bytes() for path in (out / "segmentations").glob("*.nii.gz")}
    written = {path: path.stat().st_mtime_ns for path in outputs}
    predictor = Predictor(ModelPackage.load(OLDER / "package"), engine="torch")
    with caplog.at_level(logging.WARNING, logger="segmed.archive"):
        ends = list(
            segment_archive(FolderSource(place / "scans", 1), predictor=predictor, out_dir=out)
        )
    assert sorted(end.status for end in ends) == ["done", "done", "refused"]
    assert f"from schema version 1 to {SCHEMA_VERSION}" in caplog.text
    assert {path: path.read_bytes() for path in outputs} == outputs
    assert {path: path.stat().st_mtime_ns for path in outputs} == written
    assert version_of(out / "ledger.sqlite") == SCHEMA_VERSION
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        assert [entry.attempts for entry in ledger.entries(state="done")] == [1, 1]
        assert ledger.last_run() == 2


def test_copy_of_the_old_ledger_is_kept_with_the_state_it_had(place: Path) -> None:
    path = place / "out" / "ledger.sqlite"
    before = rows(path)
    Ledger(path).close()
    copy = path.with_name("ledger.sqlite.version1")
    assert version_of(copy) == 1
    assert rows(copy) == before
    assert rows(path) == [in_todays_words(row) for row in before]


def test_readers_of_an_old_ledger_show_it_and_leave_it_as_it_is(place: Path) -> None:
    content = (place / "out" / "ledger.sqlite").read_bytes()
    status = archive_status(place / "out")
    assert (status.counts["done"], status.counts["refused"]) == (2, 1)
    assert (place / "out" / "ledger.sqlite").read_bytes() == content


def test_upgraded_tables_are_those_of_a_new_ledger(place: Path, tmp_path: Path) -> None:
    old, new = place / "out" / "ledger.sqlite", tmp_path / "new.sqlite"
    Ledger(old).close()
    Ledger(new).close()

    def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
        with closing(sqlite3.connect(path)) as connection:
            names = [
                row[0]
                for row in connection.execute("SELECT name FROM sqlite_master ORDER BY name")
                if not row[0].startswith("sqlite_")
            ]
            return {
                name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in names
            }

    assert columns(old) == columns(new)
    assert set(STEPS) == set(range(1, SCHEMA_VERSION))


def test_step_that_fails_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place / "out" / "ledger.sqlite"
    before = rows(path)
    monkeypatch.setitem(
        STEPS, 1, f"{STEPS[1]} DELETE FROM studies; ALTER TABLE nothing RENAME TO x;"
    )
    with pytest.raises(ServiceError, match="cannot be opened"):
        Ledger(path)
    assert version_of(path) == 1
    assert rows(path) == before
    monkeypatch.undo()
    Ledger(path).close()
    assert version_of(path) == SCHEMA_VERSION


def test_package_of_version_1_keeps_its_hash_and_gets_todays_card_when_saved(
    tmp_path: Path,
) -> None:
    old = ModelPackage.load(OLDER / "package")
    assert old.hash.startswith("74f84783b1e334fa")
    saved = old.save(tmp_path / "package")
    assert '"schema_version": 2' in (saved / "package.json").read_text(encoding="utf-8")
    assert ModelPackage.load(saved).hash == old.hash


def test_plan_of_version_1_trains_and_predicts_as_it_did() -> None:
    plan = read_plan(OLDER / "package" / "plan.yaml")
    assert (plan.patch_size, plan.networks["unet"].learning_rate) == ((16, 16, 16), 0.001)
    later = plan.recipe.rare_labels, plan.recipe.centred_fraction, plan.recipe.starts_from_shares
    assert later == ({}, 0.0, False)
    assert (plan.inference.average, plan.inference.tta) == ("probabilities", False)


def test_manifest_of_version_1_is_read() -> None:
    """The bundled manifest is the first version's, byte by byte."""
    assert sha256_of_file(SAMPLE).startswith("e9e879ef60a0005b")
    manifest = read_manifest(SAMPLE)
    assert (len(manifest.training), len(manifest.test)) == (34, 6)
    assert [label.value for label in manifest.labels] == [1, 2]
