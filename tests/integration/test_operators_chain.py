"""The operator's chain, on real servers, by the command line and the documented commands alone.

Fresh servers; a manifest from the images; two architectures compared briefly; a challenger promoted
through the gate; an archive segmented by the schedule; a backup; everything killed in the middle of
a run, and the site lost; the backup restored elsewhere; the schedule goes on; one step back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from site_of_operator import REPOSITORY, Site, documented, wait_for

from pipelines.demo.archive import make_archive
from segmed.archive import Ledger, archive_status
from segmed.errors import UsageError
from segmed.manifest import read_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

SAMPLE = REPOSITORY / "data_manifests" / "hippocampus_sample.json"
MODEL = "models:/hippocampus@champion"
EVERY_MINUTE = "* * * * *"
RULES = """
min_cases: 5
rules: [{metric: dice, margin: 0.01}]
max_more_missed: 0
max_more_false_positives: 0
max_slowdown: 50
"""
"""The gate's, but for speed, which a machine with other work to do measures badly."""


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    """Two places; the second one has nothing but the backup from the first."""
    both = Site(tmp_path / "first"), Site(tmp_path / "elsewhere")
    try:
        yield both
    finally:
        for site in both:
            site.kill_everything()


def lay_out_images(folder: Path) -> Path:
    """The bundled training images as a group has them: images and labels in two folders."""
    manifest = read_manifest(SAMPLE)
    for case in manifest.training:
        for kind, path in (("images", manifest.image_paths(case)[0]), ("labels", case.label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLE.parent / str(path), folder / kind)
    return folder


def more_scans(archive: Path) -> None:
    """A busy day: the training images come in, too."""
    manifest = read_manifest(SAMPLE)
    (archive / "busy_day").mkdir()
    for case in manifest.training:
        shutil.copy(manifest.image_paths(case)[0], archive / "busy_day")


def counts(out_dir: Path) -> dict[str, int]:
    try:
        return {str(state): number for state, number in archive_status(out_dir).counts.items()}
    except UsageError:  # no run has begun yet
        return {"done": 0, "running": 0, "pending": 0}


def attempts(out_dir: Path) -> dict[str, int]:
    with Ledger(out_dir / "ledger.sqlite", writer=False) as ledger:
        return {entry.study: entry.attempts for entry in ledger.entries(state="done")}


def problems(site: Site, archive: Path) -> list[str]:
    words = ("doctor", "-o", "segmentations", "--archive", archive, "--model", MODEL)
    return list(site.json(*words)["problems"])


def champion(site: Site) -> dict[str, Any]:
    versions = site.json("model", "show", MODEL)
    return dict(versions)


def test_operators_chain(sites: tuple[Site, Site], tmp_path: Path) -> None:
    first, elsewhere = sites
    archive = make_archive(read_manifest(SAMPLE), tmp_path / "archive")
    serve = ("--archive", archive, "--model", MODEL, "-o", "segmentations")

    # fresh servers
    first.start_database()
    first.make_databases()
    first.start_servers()
    first.install_heartbeat()
    assert first.json("doctor")["problems"] == []

    # manifest, comparison, promotion
    lay_out_images(first.folder / "set")
    names = ("--label-names", "anterior,posterior")
    first.segmed("manifest", "build", "set", "-o", "mine.json", "--folds", "2", *names)
    first.segmed("manifest", "check", "mine.json")
    register = ("--register", "hippocampus")
    models = ("--models", "fcn8s,unet", "--folds", "0")
    first.segmed("compare", "mine.json", *models, "--epochs", "1", "-o", "brief", *register)
    first.segmed("compare", "mine.json", *models, "--epochs", "3", "-o", "longer", *register)
    weak = champion(first)
    (first.folder / "rules.yaml").write_text(RULES, encoding="utf-8")
    gate = ("--manifest", SAMPLE, "--rules", "rules.yaml")
    first.segmed("model", "promote", "hippocampus@challenger", *gate)
    strong = champion(first)
    assert strong["hash"] != weak["hash"]

    # the schedule segments the archive
    first.serve(*serve, "--nightly-cron", EVERY_MINUTE)
    out = first.folder / "segmentations"
    assert wait_for((out / "outcomes.json").exists, 300), first.log()
    outcomes = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    assert [entry["status"] for entry in outcomes].count("done") == 6
    assert [entry["reason"][:13] for entry in outcomes if entry["status"] != "done"] == [
        "missing_slice"
    ]
    assert {entry["package"] for entry in outcomes} == {strong["hash"]}
    assert problems(first, archive) == []

    # a busy day: backup in the midst of a run, and soon the end of everything
    more_scans(archive)
    assert wait_for(lambda: counts(out)["done"] > 8, 200), first.log()
    backup = tmp_path / "backup"
    first.shell(documented("/backup/site/ledger.sqlite')").replace("/backup/site", str(backup)))
    first.kill_everything()
    shutil.rmtree(first.folder)
    finished = attempts(backup)
    assert 8 < len(finished) < 40

    # elsewhere
    elsewhere.start_database()
    restore = documented("createdb mlflow").replace("/opt/segmed", str(REPOSITORY))
    elsewhere.shell(restore.replace("/backup/site", str(backup)))
    elsewhere.start_servers()
    assert champion(elsewhere)["hash"] == strong["hash"]
    assert problems(elsewhere, archive) == []
    elsewhere.serve(*serve, "--nightly-cron", EVERY_MINUTE)
    out = elsewhere.folder / "segmentations"
    assert wait_for(lambda: counts(out)["done"] == 40, 400), elsewhere.log()
    again = attempts(out)
    assert {study: again[study] for study in finished} == finished, "done studies were done again"
    assert max(again.values()) <= 2, "more than the studies in hand were begun again"
    assert not first.folder.exists(), "a run that was planned before the loss went to its old place"

    # and a rollback stays possible
    elsewhere.segmed("model", "rollback", "hippocampus")
    assert champion(elsewhere)["hash"] == weak["hash"]
