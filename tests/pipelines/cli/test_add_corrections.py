"""`segmed manifest add-corrections`: the manifest grows, the model is scored, the week trains."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from review_archive import make_archive
from tiny_data import hippocampus_package
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.flows.weekly import WeeklyJob, manifest_of_week, scores_in_the_field
from pipelines.registry.versions import Registry
from pipelines.tracking.address import tracking_uri
from segmed.archive.review.archive import ReviewArchive
from segmed.manifest import read_manifest, write_manifest


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmented archive."""
    return make_archive(tmp_path_factory.mktemp("corrections"))


@pytest.fixture
def out(segmented: Path, tmp_path: Path) -> Path:
    """A copy of its output folder, in which one correction is accepted and one result is."""
    copy = shutil.copytree(segmented, tmp_path / "out")
    archive = ReviewArchive(copy)
    first, second, _ = archive.studies()
    values = archive.result(first).copy()
    values[2:6, 2:6, 2:6] = 1
    saved = archive.save(first, values, "Ada", origin="page")
    archive.store.add_opinion(first.entry.key, "Ada", "accepted", correction=saved.id)
    archive.store.add_opinion(second.entry.key, "Ada", "accepted")
    return copy


@pytest.fixture
def set_path(out: Path, tmp_path: Path, sample_manifest_path: Path) -> Path:
    """The bundled sample without the images of the archive."""
    manifest = read_manifest(sample_manifest_path)
    seen = {Path(study.inputs[0].place).name for study in ReviewArchive(out).studies()}
    split = {
        name: tuple(case for case in cases if Path(case.image[0]).name not in seen)
        for name, cases in (("training", manifest.training), ("test", manifest.test))
    }
    labels = hippocampus_package().plan.labels
    return write_manifest(
        manifest.model_copy(update={**split, "labels": labels}), tmp_path / "set.json"
    )


def run(*words: str, status: int = 0) -> str:
    """Output of the command."""
    done = CliRunner().invoke(app, ["manifest", "add-corrections", *words])
    assert done.exit_code == status, done.output
    return done.stdout if status != 2 else done.output


def test_correction_becomes_a_case_and_a_metric_of_the_version_that_it_scores(
    out: Path, set_path: Path, tmp_path: Path, working_folder: Path
) -> None:
    package = hippocampus_package(0).save(tmp_path / "package")
    version = Registry(working_folder).register(package, "hippocampus")
    before = read_manifest(set_path)
    record = json.loads(run(str(out), str(set_path), "--json"))
    ((name, place),) = record["added"].items()
    after = read_manifest(set_path)
    assert len(after.training) == len(before.training) + 1
    assert after.case(name).correction is not None
    assert place.startswith("training, fold ")
    (field,) = record["field"]
    assert (field["corrected"], field["accepted"]) == (1, 1)
    assert field["versions"] == ["models:/hippocampus/1"]
    client = mlflow.MlflowClient(tracking_uri(working_folder))
    known = client.get_model_version("hippocampus", "1")
    metrics = client.get_run(known.run_id).data.metrics
    assert metrics["field_dice"] == pytest.approx(field["dice"])
    assert metrics["field_corrected"] == 1.0
    assert "1 accepted corrections" in known.tags["field_dice"]
    assert version is not None
    text = set_path.read_bytes()
    assert "0 added, 0 updated, 1 unchanged" in run(str(out), str(set_path))
    assert set_path.read_bytes() == text


def test_what_is_left_out_is_listed_with_status_1(
    out: Path, set_path: Path, tmp_path: Path, working_folder: Path
) -> None:
    archive = ReviewArchive(out)
    archive.store.add_opinion(
        archive.studies()[0].entry.key, "Bob", "rejected",
        correction=archive.store.corrections()[0].id,
    )  # fmt: skip
    before = set_path.read_bytes()
    words = run(str(out), str(set_path), status=1)
    assert "left out: study" in words
    assert "disputed: Ada accepted correction 1; Bob rejected correction 1" in words
    assert set_path.read_bytes() == before


@pytest.mark.parametrize("missing", ["archive", "manifest"])
def test_mistake_is_one_line(
    out: Path, set_path: Path, tmp_path: Path, missing: str, working_folder: Path
) -> None:
    archive = tmp_path if missing == "archive" else out
    manifest = tmp_path / "none.json" if missing == "manifest" else set_path
    words = run(str(archive), str(manifest), status=2)
    assert len(words.strip().splitlines()) == 1
    assert ("no ledger" if missing == "archive" else "does not exist") in words


def test_week_trains_with_the_corrections_and_its_notice_names_them(
    out: Path, set_path: Path, tmp_path: Path, working_folder: Path
) -> None:
    job = WeeklyJob(set_path, "hippocampus", tmp_path / "weekly", archive=out)
    path, lines = manifest_of_week(job, tmp_path / "weekly" / "2026-W48")
    study = ReviewArchive(out).studies()[0].entry.study
    assert read_manifest(path).case(f"corrected-{study}").fold is not None
    assert lines == [f"1 accepted corrections are in training: corrected-{study}"]
    assert len(read_manifest(set_path).training) == len(read_manifest(path).training) - 1
    text = path.read_bytes()
    assert manifest_of_week(job, tmp_path / "weekly" / "2026-W48")[0].read_bytes() == text
    package = hippocampus_package(0).save(tmp_path / "package")
    Registry(working_folder).register(package, "hippocampus")
    (line,) = scores_in_the_field(replace(job, folder=working_folder))
    assert line.startswith("in the field: models:/hippocampus/1: Dice ")
    client = mlflow.MlflowClient(tracking_uri(working_folder))
    known = client.get_model_version("hippocampus", "1")
    assert client.get_run(known.run_id).data.metrics["field_corrected"] == 1.0
    assert (out / "field_scores.json").is_file()
    (out / "review.sqlite").unlink()
    assert scores_in_the_field(job) == []
    assert manifest_of_week(job, tmp_path / "other") == (set_path, [])


def test_corrections_that_do_not_fit_are_in_the_notice_of_the_week(
    out: Path, set_path: Path, tmp_path: Path
) -> None:
    archive = ReviewArchive(out)
    second = archive.studies()[1]
    for author, value in (("Ada", 1), ("Bob", 2)):
        saved = archive.save(second, archive.result(second) * 0 + value, author, origin="page")
        archive.store.add_opinion(second.entry.key, author, "accepted", correction=saved.id)
    job = WeeklyJob(set_path, "hippocampus", tmp_path / "weekly", archive=out)
    for _ in range(2):  # a continued run says the same
        _, lines = manifest_of_week(job, tmp_path / "weekly" / "2026-W48")
        assert len(lines) == 2
        assert lines[1].startswith(f"correction of study {second.entry.study} left out: disputed: ")
