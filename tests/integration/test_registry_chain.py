"""Trained, registered, refused, promoted, used, taken back: by the command line, on real images."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from servers import Server, uri_of
from tiny_data import hippocampus_package
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.registry.reference import CHAMPION, PREVIOUS
from pipelines.registry.versions import Registry
from segmed.errors import UsageError
from segmed.manifest import read_manifest
from segmed.plan import write_plan
from segmed.plan.make import make_plan

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SAMPLE = Path(__file__).resolve().parents[2] / "data_manifests/hippocampus_sample.json"
on_both_databases = pytest.mark.parametrize("server", ["sqlite", "postgresql"], indirect=True)


def segmed(*words: str | Path, status: int = 0) -> Any:
    """Run a command with `--json` and give its document."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def train(place: Path, name: str, *, steps: int) -> Path:
    """Train for so many steps; the package."""
    plan = make_plan(read_manifest(SAMPLE))
    recipe = plan.recipe.model_copy(update={"iterations_per_epoch": steps})
    path = place / f"{name}.yaml"
    write_plan(plan.model_copy(update={"recipe": recipe}), path)
    words = ("--model", "fcn8s", "--plan", path, "--epochs", "1", "-o", place / name)
    segmed("train", SAMPLE, *words)
    (package,) = (place / name).rglob("package")
    return package


def archive_run(place: Path, out: str) -> dict[str, Any]:
    """Segment two images with the champion; what the run says of its model, in each output."""
    source = place / "archive"
    source.mkdir(exist_ok=True)
    for case in read_manifest(SAMPLE).test[:2]:
        shutil.copy(SAMPLE.parent / case.image[0], source)
    champion = "models:/hippocampus@champion"
    record = segmed("archive", "segment", source, "--model", champion, "-o", place / out)
    (used,) = record["models"]
    written = json.loads((place / out / "model.json").read_text(encoding="utf-8"))
    assert written == {used["hash"]: used}
    outcomes = json.loads((place / out / "outcomes.json").read_text(encoding="utf-8"))
    assert [entry["status"] for entry in outcomes] == ["done", "done"]
    assert {entry["package"] for entry in outcomes} == {used["hash"]}
    inputs = {path.name for path in source.iterdir()}
    assert {Path(entry["output"]).name for entry in outcomes} == inputs
    with sqlite3.connect(place / out / "ledger.sqlite") as ledger:
        text = "\n".join(ledger.iterdump())
    assert used["hash"] in text
    image = next(source.iterdir())
    segmed("predict", image, "--model", champion, "-o", place / f"{out}-predicted")
    predicted = json.loads(
        (place / f"{out}-predicted" / "predictions.json").read_text(encoding="utf-8")
    )
    assert predicted["models"] == [used]
    return dict(used)


@on_both_databases
def test_chain_from_training_to_champion_and_back(place: Path) -> None:
    first = train(place, "first", steps=40)
    worse = train(place, "worse", steps=2)
    better = train(place, "better", steps=160)
    registered = segmed("model", "register", first, "--name", "hippocampus", "--alias", "champion")
    assert registered["version"] == "1"
    old = archive_run(place, "before")
    assert (old["version"], old["hash"]) == ("1", registered["hash"])

    rules = place / "gate.yaml"
    rules.write_text("rules: [{metric: dice, margin: 0.01}]\nmax_slowdown: 10\n", encoding="utf-8")
    promotion = ("model", "promote", "hippocampus@challenger", "--manifest", SAMPLE)
    segmed("model", "register", worse, "--name", "hippocampus", "--alias", "challenger")
    refused = segmed(*promotion, "--rules", rules, status=1)
    assert (refused["promoted"], refused["cases"]) == (False, 6)
    (dice,) = (line for line in refused["evidence"] if line["rule"] == "dice of mean")
    assert not dice["passed"]
    assert dice["challenger"] < dice["champion"]
    assert archive_run(place, "still")["version"] == "1"

    segmed("model", "register", better, "--name", "hippocampus", "--alias", "challenger")
    accepted = segmed(*promotion, "--rules", rules)
    assert (accepted["promoted"], accepted["forced"]) == (True, None)
    new = archive_run(place, "after")
    assert (new["version"], new["hash"]) == ("3", Registry().version("hippocampus", "3").hash)

    segmed("model", "rollback", "hippocampus")
    assert archive_run(place, "back") == old
    evidence_stays_with_the_versions(place)

    assert "reason" in CliRunner().invoke(app, [*map(str, promotion), "--force", " "]).output
    forced = ("model", "promote", "hippocampus/3", "--force", "better on the new scanner")
    assert segmed(*forced)["promoted"]
    assert Registry().version("hippocampus", "3").tags["segmed.forced"] == forced[-1]
    assert Registry().version("hippocampus", CHAMPION).version == "3"


def evidence_stays_with_the_versions(place: Path) -> None:
    """Table, report and decision of the refusal and of the promotion; no case is named."""
    registry = Registry()
    for number, state in (("2", "refused"), ("3", "promoted")):
        version = registry.version("hippocampus", number)
        assert version.tags["segmed.decision"].startswith(f"{state} at 20")
        got = registry.client.download_artifacts(
            version.run_id, version.tags["segmed.evidence"], str(place)
        )
        names = {path.name for path in Path(got).iterdir()}
        assert names == {
            "decision.json",
            "evidence.csv",
            "champion.csv",
            "challenger.csv",
            "report.html",
        }
        assert json.loads((Path(got) / "decision.json").read_text(encoding="utf-8"))["decided_by"]
        for path in Path(got).iterdir():
            assert "hippocampus_036" not in path.read_text(encoding="utf-8")
        assert "## Failure cases" in version.description
        # the version belongs to the run that trained it; its package lies on the server once
        assert registry.client.get_run(version.run_id).data.tags["segmed.role"] == "training"


def promote_against_the_first(uri: str, number: str, gate: Any, answers: Any) -> None:
    """Result of one of several simultaneous promotions."""
    registry = Registry(uri=uri)
    registry.names()
    gate.wait()
    try:
        registry.promote("crowded", number, expected_champion="1")
        answers.put("promoted")
    except UsageError as error:
        answers.put(str(error))


@on_both_databases
def test_promotions_at_the_same_time_leave_one_champion_and_one_previous(
    server: Server, place: Path
) -> None:
    registry = Registry()
    for seed in range(5):
        package = hippocampus_package(seed).save(place / f"package{seed}")
        registry.register(package, "crowded")
    registry.set_alias("crowded", CHAMPION, "1")
    spawn = multiprocessing.get_context("spawn")
    gate, answers = spawn.Barrier(4), spawn.Queue()
    crowd = [
        spawn.Process(
            target=promote_against_the_first, args=(uri_of(server), str(number), gate, answers)
        )
        for number in range(2, 6)
    ]
    for process in crowd:
        process.start()
    told = [answers.get(timeout=200) for _ in crowd]
    for process in crowd:
        process.join()
    assert told.count("promoted") == 1, told
    assert all(
        "compare again" in text or "is running" in text for text in told if text != "promoted"
    )
    aliases = {entry.version: entry.aliases for entry in registry.versions("crowded")}
    assert aliases.pop("1") == (PREVIOUS,)
    assert sorted(aliases.values()) == [(), (), (), (CHAMPION,)]
    assert "crowded" in registry.names()
    assert not [name for name in registry.names() if "lock" in name]
