"""`segmed model quantise`: a folder in place or elsewhere, a registered model as a new version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from pipelines.registry import faster
from pipelines.registry.exports import export_model
from pipelines.registry.registration import register_package
from segmed.acceleration import Quantised, network, quantise
from segmed.acceleration.quantising import QuantisationRequest
from segmed.manifest import Manifest
from segmed.package import ModelPackage
from segmed.package.int8 import INT8_FILE


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["model", *words])


@pytest.fixture
def site(package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the package, a registry and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return package.save(tmp_path / "package")


def with_limits(monkeypatch: pytest.MonkeyPatch, dice_loss: float) -> None:
    """Measure by other limits than the command's, which a network of seconds may miss."""
    limits = QuantisationRequest().limits.model_copy(
        update={"dice_loss": dice_loss, "labels_changed": 20 * dice_loss}
    )

    def measured(package: ModelPackage, manifest: Manifest, request: QuantisationRequest,
                 **rest: object) -> Quantised:  # fmt: skip
        short = QuantisationRequest(request.fold, request.cases, 4, request.seed, limits)
        return quantise(package, manifest, short, **rest)

    monkeypatch.setattr(faster, "quantise", measured)


@pytest.mark.slow
def test_folder_and_registered_model_get_an_int8_network(
    site: Path, package: ModelPackage, sample_manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_limits(monkeypatch, 0.02)
    cases = ["--cases", str(sample_manifest_path)]
    done = run("quantise", str(site), *cases, "-o", "fast", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["accepted"]
    assert record["float32_hash"] == package.hash
    assert ModelPackage.load("fast").hash == record["hash"] != package.hash
    assert not (site / INT8_FILE).exists()
    assert "calibrating on 4 windows" in done.stderr

    shown = run("show", "fast")
    assert "accepted on 7 held-out cases: anterior Dice" in shown.output
    assert "- int8: accepted on 7 held-out cases" in run("card", "fast").output
    assert "int8" not in run("show", str(site)).output

    first = register_package(site, "hippocampus", "champion")
    done = run("quantise", "models:/hippocampus@champion", *cases, "--alias", "challenger")
    assert done.exit_code == 0, done.output
    assert "accepted: models:/hippocampus/2" in done.stdout
    again = json.loads(run("show", "models:/hippocampus@challenger", "--json").stdout)
    (attempt,) = record["attempts"]
    assert again["int8"]["structures"] == attempt["structures"]  # the same draw, the same cases
    assert first.hash == package.hash

    export_model("models:/hippocampus@challenger", Path("fast.zip"), "zip")
    assert ModelPackage.load("fast.zip").accepted_int8 is not None
    bundle = Path("bundle")
    export_model("models:/hippocampus@challenger", bundle, "bundle")
    assert ModelPackage.load(bundle / "models").hash == again["hash"]


@pytest.mark.slow
def test_refused_network_ends_with_status_1_and_changes_nothing(
    site: Path, package: ModelPackage, sample_manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_limits(monkeypatch, 0.0)
    refused = run("quantise", str(site), "--cases", str(sample_manifest_path))
    assert refused.exit_code == 1
    assert "not accepted: " in refused.stdout
    assert ModelPackage.load(site).hash == package.hash
    words = ["--name", "hippocampus", "--alias", "champion", "--quantise"]
    refused = run("register", str(site), *words, str(sample_manifest_path), "--json")
    assert refused.exit_code == 1
    record = json.loads(refused.stdout)
    assert record["hash"] == package.hash
    assert not record["int8"]["accepted"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--cases", "{manifest}"], "does not exist; give a package folder"),
        (["package", "--cases", "nowhere.json"], "nowhere.json"),
        (["package", "--cases", "{manifest}", "--fold", "9"], "fold 9 is not in manifest"),
        (["package", "--cases", "{manifest}", "--fold", "1"], "were trained on"),
        (["package", "--cases", "{manifest}", "--fold", "0", "--test"], "choose the cases"),
        (
            ["package", "--cases", "{manifest}", "--alias", "champion"],
            "--alias is for a registered",
        ),
    ],
)
def test_input_that_cannot_be_used_is_named(
    words: list[str], message: str, site: Path, sample_manifest_path: Path
) -> None:
    refused = run("quantise", *[word.format(manifest=sample_manifest_path) for word in words])
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_missing_nncf_is_named_with_its_remedy(
    site: Path, sample_manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "has_openvino", lambda: False)
    refused = run("quantise", str(site), "--cases", str(sample_manifest_path))
    assert refused.exit_code == 2
    assert "pip install 'segmed[int8]'" in refused.stderr


def test_engine_int8_without_an_int8_network_is_refused_by_name(
    site: Path, sample_manifest_path: Path
) -> None:
    image = next(sample_manifest_path.parent.rglob("hippocampus_001.nii.gz"))
    words = ["predict", str(image), "--model", str(site), "-o", "out", "--engine", "int8"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "has no int8 network: `segmed model quantise` makes and measures one" in refused.stderr
