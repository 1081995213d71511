"""Monthly dossiers: results of an archive of real images that reviewers judged."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from review_archive import make_archive
from tiny_data import hippocampus_package
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.flows.monthly import monthly, told
from pipelines.registry.monthly import MONTHLY_CRITERIA, MonthlyJob, accept_month
from segmed.acceptance.criteria import read_criteria
from segmed.acceptance.monthly import NothingJudgedError, period_of
from segmed.archive.review.archive import ReviewArchive
from segmed.errors import UsageError

REVIEWER = "Ada Augusta-Lovelace"
"""Too long to occur in an encoded picture by chance."""


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("months"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hippocampus_package(0).save(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture
def archive(segmented: Path, tmp_path: Path) -> ReviewArchive:
    return ReviewArchive(shutil.copytree(segmented, tmp_path / "out"))


def judge(archive: ReviewArchive) -> None:
    """Of three results one is accepted, one corrected and one rejected."""
    accepted, corrected, rejected = archive.studies()
    archive.store.add_opinion(accepted.entry.key, REVIEWER, "accepted")
    values = archive.result(corrected).copy()
    values[2:9, 2:9, 2:9] = 1
    saved = archive.save(corrected, values, REVIEWER, origin="page")
    archive.store.add_opinion(corrected.entry.key, REVIEWER, "accepted", correction=saved.id)
    archive.store.add_opinion(rejected.entry.key, REVIEWER, "rejected")


def job_of(archive: ReviewArchive, package: Path, tmp_path: Path) -> MonthlyJob:
    return MonthlyJob((str(package),), archive.out_dir, tmp_path / "month")


def test_judged_results_are_scored_and_counted(
    archive: ReviewArchive, package: Path, tmp_path: Path
) -> None:
    judge(archive)
    found = accept_month(job_of(archive, package, tmp_path))
    dossier = found.dossier
    assert dossier.judged == {"accepted": 1, "corrected": 1, "rejected": 1}
    assert dossier.cases == 2
    means = dossier.table.groupby("case")["dice"].mean()
    assert means.max() == 1.0
    assert 0.0 < means.min() < 1.0
    values = {(line.measure, line.of): line.value for line in (*dossier.accept, *dossier.stop)}
    assert values["rejected", ""] == pytest.approx(1 / 3)
    assert [line.measure for line in dossier.stopped_by] == ["rejected"]
    record = json.loads(found.record.read_text(encoding="utf-8"))
    assert record["period"] == dossier.months
    assert record["archive"]["counts"] == {"done": 3}
    studies = {study.entry.study for study in archive.studies()}
    assert not [name for name in studies if name in found.record.read_text(encoding="utf-8")]
    assert REVIEWER not in found.record.read_text(encoding="utf-8") + found.page.read_text(
        encoding="utf-8"
    )


def test_another_month_and_another_model_have_nothing_judged(
    archive: ReviewArchive, package: Path, tmp_path: Path
) -> None:
    judge(archive)
    job = job_of(archive, package, tmp_path)
    this_month = f"{datetime.now(UTC):%Y-%m}"
    named = MonthlyJob(job.models, job.archive, job.out_dir, month=this_month)
    assert accept_month(named).dossier.cases == 2
    past = MonthlyJob(job.models, job.archive, job.out_dir, month="2020-02")
    with pytest.raises(NothingJudgedError, match="judged in 2020-02"):
        accept_month(past)
    other = hippocampus_package(1).save(tmp_path / "other")
    with pytest.raises(NothingJudgedError, match="segmed review"):
        accept_month(MonthlyJob((str(other),), job.archive, job.out_dir))


def test_later_verdict_of_a_reviewer_replaces_the_earlier(
    archive: ReviewArchive, package: Path, tmp_path: Path
) -> None:
    judge(archive)
    rejected = archive.studies()[2]
    archive.store.add_opinion(rejected.entry.key, REVIEWER, "accepted")
    found = accept_month(job_of(archive, package, tmp_path))
    assert found.dossier.judged == {"accepted": 2, "corrected": 1, "rejected": 0}


def test_result_that_cannot_be_read_is_counted_by_reason(
    archive: ReviewArchive, package: Path, tmp_path: Path
) -> None:
    judge(archive)
    entry = archive.studies()[0].entry
    (archive.out_dir / str(entry.output)).unlink()
    found = accept_month(job_of(archive, package, tmp_path))
    assert found.dossier.refused == {"unread": 1}
    assert found.dossier.cases == 1


def test_command_ends_with_status_1_and_needs_an_archive(
    archive: ReviewArchive, package: Path, tmp_path: Path
) -> None:
    judge(archive)

    def run(*words: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["accept", str(package), *map(str, words)])
        return result.exit_code, result.output

    out = ("-o", tmp_path / "dossier")
    status, text = run("--monthly", "--archive", archive.out_dir, *out)
    assert status == 1
    assert "stop rule crossed: rejected" in text
    assert (tmp_path / "dossier" / "dossier.html").exists()
    for words, named in (
        (("--monthly",), "--monthly needs --archive"),
        (("--monthly", "--archive", tmp_path), "no ledger"),
        (("--monthly", "--archive", archive.out_dir, "--month", "May"), "write it as 2026-11"),
        (("--month", "2026-11", "--cases", "x.json"), "--month has no meaning"),
        (("--monthly", "--archive", archive.out_dir, "--cases", "x"), "--cases has no meaning"),
    ):
        status, text = run(*words)
        assert (status, named in text) == (2, True), text


def test_command_ends_with_status_0_where_all_is_fulfilled(
    archive: ReviewArchive, package: Path, tmp_path: Path
) -> None:
    for study in archive.studies():
        archive.store.add_opinion(study.entry.key, REVIEWER, "accepted")
    criteria = tmp_path / "criteria.yaml"
    criteria.write_text(
        "accept: [{measure: cases, at_least: 3}, {measure: rejected, at_most: 0}]", encoding="utf-8"
    )
    words = ["accept", package, "--monthly", "--archive", archive.out_dir, "-o", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--criteria", criteria)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "accepted"


def test_flow_tells_the_verdict_or_that_nothing_was_judged(
    archive: ReviewArchive, package: Path, tmp_path: Path
) -> None:
    assert monthly.name == "monthly"
    assert told("no result of this model was judged")[0] == "monthly acceptance: no dossier"
    judge(archive)
    subject, body = told(accept_month(job_of(archive, package, tmp_path)))
    assert subject.endswith("not accepted")
    assert "rejected" in body


def test_periods() -> None:
    december = period_of("2026-12")
    assert datetime.fromtimestamp(december.start, UTC) == datetime(2026, 12, 1, tzinfo=UTC)
    assert datetime.fromtimestamp(december.end, UTC) == datetime(2027, 1, 1, tzinfo=UTC)
    assert december.end not in december
    now = datetime(2026, 3, 1, 6, tzinfo=UTC)
    last = period_of(None, now)
    assert now.timestamp() in last
    assert datetime(2026, 2, 1, tzinfo=UTC).timestamp() in last
    for odd in ("2026-13", "2026-1", "May", ""):
        with pytest.raises(UsageError, match="write it as 2026-11"):
            period_of(odd)


def test_default_criteria_of_a_month_are_valid() -> None:
    assert "rejected" in {one.measure for one in read_criteria(MONTHLY_CRITERIA).accept}
