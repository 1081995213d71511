"""Planted names of persons are in no dossier, record, log, page or entry of MLflow."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import planted_names as planted
import pytest
from tiny_data import hippocampus_package
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.registry.versions import Registry
from segmed.acceptance.files import OWNER_ALONE
from segmed.archive.review.archive import ReviewArchive

SAMPLE = Path(__file__).resolve().parents[3] / "data_manifests" / "hippocampus_sample"
CASES, BROKEN = 6, 1
REVIEWER = planted.HEADER["PerformingPhysicianName"]

Run = Callable[..., bytes]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hippocampus_package().save(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of planted series; one of them lacks a slice."""
    root = tmp_path_factory.mktemp("site") / planted.FOLDER_NAME
    return planted.plant_set(root, SAMPLE, CASES, broken=BROKEN)


@pytest.fixture(scope="module")
def archive(local: Path, package: Path, tmp_path_factory: pytest.TempPathFactory) -> ReviewArchive:
    """Output folder of a run over the planted series, judged by a physician of that name."""
    out = tmp_path_factory.mktemp("archive") / "out"
    words = ["archive", "segment", local.parent / planted.SCANS, "--model", package, "-o", out]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 1, result.output  # one series is refused
    archive = ReviewArchive(out)
    first, *others = archive.studies()
    assert len(others) == CASES - 1, result.output
    for study in others:
        archive.store.add_opinion(study.entry.key, REVIEWER, "accepted")
    values = archive.result(first).copy()
    values[2:9, 2:9, 2:9] = 1
    saved = archive.save(first, values, REVIEWER, origin="page")
    archive.store.add_opinion(first.entry.key, REVIEWER, "accepted", correction=saved.id)
    return archive


@pytest.fixture
def registered(
    working_folder: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Registry:
    """The model in the embedded MLflow; all keys, caches and files are below one folder."""
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    registry = Registry(working_folder)
    registry.register(package, "hippo")
    return registry


def in_registry(registry: Registry) -> bytes:
    """All that MLflow answers about the version and its run."""
    version = registry.version("hippo", "1")
    run = registry.client.get_run(version.run_id)
    return json.dumps([dict(version.tags), run.to_dictionary()]).encode()


@pytest.mark.parametrize(
    "variant",
    [
        "alone",
        pytest.param("archive", marks=pytest.mark.slow),
        pytest.param("export", marks=pytest.mark.slow),
        "both",
    ],
)
def test_dossier_tells_no_planted_name(
    registered: Registry,
    local: Path,
    archive: ReviewArchive,
    tmp_path: Path,
    run: Run,
    variant: str,
) -> None:
    out, words = tmp_path / "dossier", ["accept", "models:/hippo/1", "--cases", local]
    if variant in {"archive", "both"}:
        words += ["--archive", archive.out_dir]
    if variant in {"export", "both"}:
        rival = hippocampus_package(1).save(tmp_path / "rival")
        words += ["--export", tmp_path / "evidence.json", "--against", rival]
    told = run(*words, "-o", out, "--device", "cpu", status=1)
    record = json.loads((out / "dossier.json").read_text(encoding="utf-8"))
    assert record["cases"] == CASES
    assert sum(record["refused"].values()) == BROKEN
    assert record["archive"] is None or sum(record["archive"]["reasons"].values()) == BROKEN
    shown = {row["value"] for row in record["groups"]}
    assert {
        "ACME One of [removed], [removed], [removed] and [removed]",
        "60 to 69",
        "female",
    } <= shown
    assert list((tmp_path / "mlartifacts").rglob("dossier.html"))
    assert planted.leaks_below(tmp_path, apart=[out / "private"]) == {}
    assert planted.leaks(told) == planted.leaks(in_registry(registered)) == set()
    assert planted.leaks_below(out / "private"), "the search finds what is there"
    assert (out / "private").stat().st_mode & 0o777 == OWNER_ALONE


def test_dossier_of_a_month_tells_no_planted_name(
    registered: Registry, archive: ReviewArchive, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "month"
    words = ["accept", "models:/hippo/1", "--monthly", "--archive", archive.out_dir, "-o", out]
    told = run(*words, status=1)
    told += run(*words, "--json", status=1)
    record = json.loads((out / "dossier.json").read_text(encoding="utf-8"))
    assert record["judged"] == {"accepted": CASES - 1, "corrected": 1, "rejected": 0}
    assert list((tmp_path / "mlartifacts").rglob("dossier.html"))
    assert planted.leaks_below(tmp_path, apart=[out / "private"]) == {}
    assert planted.leaks(told) == planted.leaks(in_registry(registered)) == set()


def test_every_planted_word_is_in_the_inputs(local: Path) -> None:
    found = planted.leaks_below(local.parent.parent)
    assert set().union(*found.values()) == set(planted.WORDS)


@pytest.mark.parametrize("word", ["Müßiggang", "PID77881203", "19471103", "Ordnerfuchs"])
def test_search_finds_a_word_in_each_encoding(word: str) -> None:
    page = f'<img src="data:image/jpeg;base64,{base64.b64encode(b"ab" + word.encode()).decode()}">'
    forms = [
        f"x{word}y".encode(),
        word.upper().encode(),
        word.encode("utf-16"),
        quote(word).encode(),
        json.dumps([word]).encode(),
        word.encode("ascii", "xmlcharrefreplace"),
        base64.b64encode(f"a {word}".encode()),
        base64.urlsafe_b64encode(f"ab {word} c".encode()),
        page.encode(),
    ]
    assert [planted.leaks(form) for form in forms] == [{word}] * len(forms)
    assert planted.leaks(b"Mueller 19471104 PID7788120") == set()


def test_birth_date_is_found_in_other_forms() -> None:
    for form in ("1947-11-03", "03.11.1947", "11/03/1947"):
        assert planted.leaks(f"born {form}".encode()) == {"19471103"}


def test_earlier_label_maps_are_removed_and_other_files_stay(
    registered: Registry, local: Path, tmp_path: Path, run: Run
) -> None:
    """A dossier of other cases in the same folder leaves no label map of the earlier ones."""
    out = tmp_path / "dossier"
    words = ["accept", "models:/hippo/1", "--cases", local, "--no-keep", "-o", out]
    run(*words, "--fold", "0", status=1)
    maps = out / "private" / "segmentations"
    first = {path.name for path in maps.iterdir()}
    shutil.copy(next(maps.iterdir()), maps / "own.nii.gz")
    run(*words, "--fold", "1", status=1)
    second = {path.name for path in maps.iterdir()}
    assert second & first == set()
    assert "own.nii.gz" in second
    assert len(second) == CASES / 2 + 1
