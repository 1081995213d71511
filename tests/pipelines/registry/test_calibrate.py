"""`segmed model calibrate` and `--promise`: predicted quality and its promise, fitted later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_data import hippocampus_package
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from pipelines.registry.registration import register_package
from segmed.acceptance.local_quality import FITTED_ON
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.manifest import read_manifest, write_manifest
from segmed.package import ModelPackage
from segmed.package.check import check_package
from segmed.package.ensemble import join_packages
from segmed.package.predicted_quality import with_promise
from segmed.package.training_cases import SEEN, image_mark
from segmed.quality.identity import PREDICTED_QUALITY
from segmed.quality.package_form import quality_model_in
from segmed.quality.risk import DEFAULT_TARGET, RiskTarget

LOCAL = 22


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["model", *words])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def local(site: Path, sample_manifest_path: Path) -> Path:
    manifest = read_manifest(sample_manifest_path)
    cases = manifest.training[:LOCAL]
    return write_manifest(manifest.model_copy(update={"training": cases}), site / "in" / "M.json")


def ensemble(seeds: int = 3) -> ModelPackage:
    return join_packages([hippocampus_package(seed) for seed in range(seeds)])


def test_an_ensemble_gets_predicted_quality_with_the_agreement_of_its_networks(
    site: Path, local: Path
) -> None:
    whole = ensemble()
    place = whole.save(site / "package")
    terms = "dice=0.7, risk=10%"
    done = run("calibrate", str(place), "--cases", str(local), "--promise", terms, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert "agreement" in record["features"]
    assert record["promise"] == {"dice": 0.7, "risk": 0.1, "review": 0.1, "confidence": 0.95}
    assert not record["promised"]
    loaded = ModelPackage.load(place)
    assert loaded.hash == record["hash"] == check_package(place).hash != whole.hash
    assert loaded.float32_hash == whole.hash
    model = quality_model_in(loaded.provenance)
    assert model is not None
    assert (model.basis, model.networks) == ("local", 3)
    assert len(loaded.provenance[FITTED_ON]) == record["cases"]
    case = read_manifest(local).test[0]
    found = Predictor(loaded, engine="torch").predict(read_manifest(local).image_paths(case)[0])
    assert found.quality is not None
    assert all(item.low is not None for item in found.quality.structures if item.volume_ml)
    text = run("show", str(place)).output
    assert "with the agreement of its networks; no promise:" in " ".join(text.split())
    assert "- predicted quality: fitted on" in run("card", str(place)).output


def test_a_registered_model_gets_a_version_and_promises_are_versions_too(
    site: Path, local: Path
) -> None:
    place = hippocampus_package().save(site / "package")
    first = register_package(place, "hip", "champion")
    done = run("calibrate", "models:/hip@champion", "--cases", str(local), "--alias", "challenger")
    assert done.exit_code == 0, done.output
    assert "models:/hip/2" in done.stdout
    out = ["-o", "calibrated"]
    assert run("calibrate", str(place), "--cases", str(local), *out).exit_code == 0
    again = run("register", "calibrated", "--name", "hip", "--promise", "review=20%", "--json")
    assert again.exit_code == 0, again.output
    third = json.loads(again.stdout)
    assert third["version"] == "3"
    hashes = {first.hash, ModelPackage.load("calibrated").hash, third["hash"]}
    assert len(hashes) == 3  # one network, three models to registry, cache and ledger
    shown = json.loads(run("show", "models:/hip/3", "--json").stdout)
    assert "20% review" in shown["predicted_quality"]
    assert (
        "10% review"
        in json.loads(run("show", "models:/hip/2", "--json").stdout)["predicted_quality"]
    )
    same = run("register", "calibrated", "--name", "hip", "--promise", "dice=0.8", "--json")
    assert json.loads(same.stdout)["version"] == "2"  # the default terms are the default promise


def test_cases_that_trained_the_model_and_too_few_patients_are_refused(
    site: Path, local: Path
) -> None:
    manifest = read_manifest(local)
    seen = image_mark(manifest, manifest.training[3])
    package = join_packages([hippocampus_package(0), hippocampus_package(1)], {SEEN: [seen]})
    place = package.save(site / "package")
    done = run("calibrate", str(place), "--cases", str(local))
    assert done.exit_code == 2
    assert f"1 of {LOCAL + 6} cases are images that trained or chose the model" in done.output
    few = manifest.model_copy(update={"training": manifest.training[4:6], "test": ()})
    path = write_manifest(few, site / "few" / "M.json")
    done = run("calibrate", str(place), "--cases", str(path))
    assert done.exit_code == 2
    assert "2 patients are too few" in done.output
    done = run("calibrate", str(place), "--cases", str(path), "--test")
    assert done.exit_code == 2
    assert "no test case with a label" in done.output
    assert PREDICTED_QUALITY not in ModelPackage.load(place).provenance


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ("dcie=0.8", "'dcie=0.8' is not one of dice=0.8, risk=5%"),
        ("dice", "'dice' is not one of"),
        ("dice=0.8,dice=0.9", "'dice=0.9' is given twice"),
        ("risk=five", "'five' is no number"),
        ("risk=500%", "risk"),
        ("confidence=1", "confidence"),
        ("dice=nan", "dice"),
    ],
)
def test_wrong_terms_of_a_promise_are_refused_in_one_line(
    terms: str, message: str, site: Path, local: Path
) -> None:
    place = hippocampus_package().save(site / "package")
    for words in (
        ["register", str(place), "--name", "hip"],
        ["calibrate", str(place), "--cases", str(local)],
    ):
        done = run(*words, "--promise", terms)
        assert done.exit_code == 2, words
        assert message in done.output
        assert len(done.output.strip().splitlines()) == 1


def test_terms_of_a_promise_may_be_shares_or_per_cent() -> None:
    found = RiskTarget.parse("risk = 2.5%, review=0.2")
    assert found == RiskTarget(risk=0.025, review=0.2)
    assert RiskTarget.parse("review=0%").review == 0.0
    assert RiskTarget.parse("") == DEFAULT_TARGET


def test_a_package_without_predicted_quality_promises_nothing(site: Path) -> None:
    place = hippocampus_package().save(site / "package")
    done = run("register", str(place), "--name", "hip", "--promise", "dice=0.9")
    assert done.exit_code == 2
    assert "predicts no quality" in done.output
    assert "segmed model calibrate" in done.output
    with pytest.raises(UsageError, match="predicts no quality"):
        with_promise(ModelPackage.load(place), RiskTarget())
