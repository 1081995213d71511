"""Dossier of a package that predicts quality: the promise of the package, checked locally."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_data import hippocampus_package

from pipelines.registry.acceptance import AcceptJob, accept_site
from segmed.acceptance.criteria import BoundTerms
from segmed.acceptance.predicted import promise_of
from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.manifest import Manifest, read_manifest, write_manifest
from segmed.package import ModelPackage
from segmed.quality.fitting import fit_quality
from segmed.quality.identity import PREDICTED_QUALITY

SAMPLE = Path(__file__).resolve().parents[3] / "data_manifests" / "hippocampus_sample.json"
FITTED, LOCAL = 12, 3


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(SAMPLE)


@pytest.fixture(scope="module")
def package(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """An untrained network with a quality model of its segmentations of twelve cases."""
    bare = hippocampus_package()
    found = score_cases(
        Predictor(bare, device="cpu", engine="torch"),
        manifest,
        manifest.training[:FITTED],
        out_dir=tmp_path_factory.mktemp("fitted"),
        with_features=True,
    )
    model = fit_quality(list(found.quality_cases.values()), basis="held_out")
    assert model is not None
    return replace(bare, provenance={PREDICTED_QUALITY: model.model_dump(mode="json")})


def test_promise_is_tested_at_the_terms_of_the_criteria(package: ModelPackage) -> None:
    found = promise_of([package], BoundTerms(dice=0.8))
    assert found is not None
    assert found.risk is None  # an untrained network promises nothing
    assert found.review <= 0.1 + 1e-9
    assert promise_of([package, package], BoundTerms()) is None
    assert promise_of([replace(package, provenance={})], BoundTerms()) is None


def test_dossier_has_calibration_and_a_bound_of_the_unreviewed(
    package: ModelPackage, manifest: Manifest, tmp_path: Path
) -> None:
    local = manifest.model_copy(
        update={"training": manifest.training[FITTED : FITTED + LOCAL], "test": ()}
    )
    path = write_manifest(local, tmp_path / "local" / "M.json")
    job = AcceptJob(str(package.save(tmp_path / "package")), path, tmp_path / "out", device="cpu")
    found = accept_site(job)
    calibration = found.dossier.record()["calibration"]
    assert calibration["best_aurc"] <= calibration["aurc"]
    assert {row["label"] for row in calibration["intervals"]} == {"anterior", "posterior"}
    assert found.dossier.bound.reviewed is not None
    assert found.dossier.bound.reviewed + found.dossier.bound.patients == LOCAL
    text = found.page.read_text(encoding="utf-8")
    assert "Predicted quality" in text
    assert "Risk by coverage" in text
