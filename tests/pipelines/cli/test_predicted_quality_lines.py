"""Predicted quality in what `segmed predict` prints and writes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_data import hippocampus_package
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from pipelines.cli.quality_words import QUALITY_TABLE
from segmed.acceptance.local_quality import fit_locally
from segmed.manifest import Manifest, read_manifest
from segmed.package import ModelPackage

FITTED = 20


@pytest.fixture(scope="module")
def manifest(sample_manifest_path: Path) -> Manifest:
    return read_manifest(sample_manifest_path)


@pytest.fixture(scope="module")
def package(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = fit_locally(hippocampus_package(), manifest, manifest.training[:FITTED], device="cpu")
    return made.save(tmp_path_factory.mktemp("model") / "package")


def predict(package: Path, *words: str | Path) -> Result:
    fixed = ["predict", "--model", str(package), "--engine", "torch", "--device", "cpu"]
    return CliRunner().invoke(app, [*fixed, *map(str, words)])


def test_lines_table_and_record_state_dice_and_volume_with_intervals(
    package: Path, manifest: Manifest, tmp_path: Path
) -> None:
    images = [manifest.image_paths(case)[0] for case in manifest.test[:2]]
    done = predict(package, *images, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    with (tmp_path / "out" / QUALITY_TABLE).open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["structure"] for row in rows] == ["anterior", "posterior"] * 2
    for entry, pair in zip(record["outcomes"], (rows[:2], rows[2:]), strict=True):
        quality = entry["quality"]
        assert quality["score"] == min(item["dice"] for item in quality["structures"].values())
        for row in pair:
            item = quality["structures"][row["structure"]]
            assert float(row["low"]) == item["low"] <= item["dice"] <= item["high"]
            assert float(row["volume_low_ml"]) < float(row["volume_high_ml"])
            assert row["to_review"] == str(quality["to_review"])
            line = f"{row['structure']}: Dice {item['dice']:.3f} ({item['low']:.3f} to "
            assert line in done.stdout
    assert f"quality: {images[0]}: lowest Dice" in done.stdout
    assert f"\n{record['promise']}" in done.stdout
    assert record["promise"].startswith("no promise: ")


def test_a_model_without_predicted_quality_leaves_no_table_of_an_earlier_one(
    package: Path, manifest: Manifest, tmp_path: Path
) -> None:
    image = manifest.image_paths(manifest.test[0])[0]
    assert predict(package, image, "-o", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / QUALITY_TABLE).exists()
    bare = replace(ModelPackage.load(package), provenance={}).save(tmp_path / "bare")
    done = predict(bare, image, "-o", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out" / QUALITY_TABLE).exists()
    record = json.loads(done.stdout)
    assert record["promise"] is None
    assert record["outcomes"][0]["quality"] is None
    assert "quality:" not in done.stderr
