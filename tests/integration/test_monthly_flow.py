"""Monthly flow on a real Prefect server: scheduled by `segmed serve`, a notice, then a dossier."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from prefect_client import Api, wait_for
from servers import Server
from test_prefect_server import EVERY_MINUTE, NEVER, environment, running, serve_command
from tiny_data import hippocampus_package

from segmed.acceptance.local_quality import fit_locally
from segmed.archive import FolderSource, segment_archive
from segmed.archive.review.archive import ReviewArchive
from segmed.inference import Predictor
from segmed.manifest import read_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

FITTED, STUDIES = 20, 6
KEY = "monthly-acceptance"
REVIEWER = "Ada Augusta-Lovelace"


@pytest.fixture
def site(tmp_path: Path, sample_manifest_path: Path) -> Path:
    """A folder with a package that predicts quality and the archive that it segmented."""
    manifest = read_manifest(sample_manifest_path)
    fitted, rest = manifest.training[:FITTED], manifest.training[FITTED : FITTED + STUDIES]
    package = fit_locally(hippocampus_package(), manifest, fitted, device="cpu")
    package.save(tmp_path / "package")
    (tmp_path / "scans").mkdir()
    for case in rest:
        shutil.copy(manifest.image_paths(case)[0], tmp_path / "scans")
    predictor = Predictor(package, device="cpu", engine="torch")
    outcomes = list(
        segment_archive(
            FolderSource(tmp_path / "scans"), predictor=predictor, out_dir=tmp_path / "out"
        )
    )
    assert {outcome.status for outcome in outcomes} == {"done"}
    return tmp_path


def judge(archive: ReviewArchive) -> None:
    """All results are accepted but one, which is corrected."""
    first, *others = archive.studies()
    for study in others:
        archive.store.add_opinion(study.entry.key, REVIEWER, "accepted")
    values = archive.result(first).copy()
    values[2:9, 2:9, 2:9] = 1
    saved = archive.save(first, values, REVIEWER, origin="page")
    archive.store.add_opinion(first.entry.key, REVIEWER, "accepted", correction=saved.id)


def test_served_month_says_that_nothing_was_judged_then_writes_a_dossier(
    prefect: Server, site: Path
) -> None:
    api = Api(prefect.health.removesuffix("/health"))
    command = serve_command(
        str(site / "scans"), site, "--nightly-cron", NEVER, "--monthly-cron", EVERY_MINUTE
    )

    def artifact() -> str:
        return str(api.artifacts().get(KEY, {}).get("data", ""))

    with running(command, site, environment(api, site), "serve.log") as log:
        first = wait_for(artifact, 300)
        assert "no result of this model was judged" in first, log.read_text(encoding="utf-8")[
            -3000:
        ]
        judge(ReviewArchive(site / "out"))
        found = wait_for(lambda: "bound" in artifact() and artifact(), 300)
        assert found, log.read_text(encoding="utf-8")[-3000:]
    runs = api.runs("monthly")
    assert all("auto-scheduled" in run["tags"] for run in runs)
    assert any(run["state_name"] == "Completed" for run in runs)
    (folder,) = (site / KEY).iterdir()  # of the day, written again by each run
    assert {path.name for path in folder.iterdir()} == {
        "dossier.html",
        "dossier.json",
        "private",
    }
    assert [path.name for path in (folder / "private").iterdir()] == ["cases.csv"]
    record = json.loads((folder / "dossier.json").read_text(encoding="utf-8"))
    calibration = record["calibration"]
    assert calibration["best_aurc"] <= calibration["aurc"]
    assert {row["n"] for row in calibration["intervals"]} == {0}  # accepted results have Dice 1
    for path in (folder / "dossier.html", folder / "dossier.json"):
        assert REVIEWER not in path.read_text(encoding="utf-8")
    assert REVIEWER not in found
