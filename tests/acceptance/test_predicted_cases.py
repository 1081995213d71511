"""Predicted quality that a dossier may check: not of cases that fitted it, no Dice of accepted."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_data import hippocampus_package

from pipelines.registry.acceptance import AcceptJob, accept_site
from segmed.acceptance.local_quality import fit_locally
from segmed.acceptance.predicted import predicted_order
from segmed.manifest import read_manifest, write_manifest
from segmed.quality.model import CaseQuality, StructureQuality


def test_judged_results_keep_the_order_and_lose_the_intervals() -> None:
    """An accepted result is its own reference: Dice 1 would be outside of every interval."""
    stated = CaseQuality(0.7, 0.9, (StructureQuality("liver", 0.7, 0.6, 0.8, 10.0, 9.0, 12.0),))
    found = predicted_order(json.loads(json.dumps(stated.record())))
    assert found.score == 0.7
    (item,) = found.structures.values()
    assert (item.dice, item.low, item.high) == (0.7, None, None)


def test_cases_that_fitted_predicted_quality_do_not_check_it(
    sample_manifest_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read_manifest(sample_manifest_path)
    fitted = manifest.training[:8]
    package = fit_locally(hippocampus_package(), manifest, fitted, device="cpu")
    place = package.save(tmp_path / "package")
    dossiers = []
    for name, cases in (("same", manifest.training[6:10]), ("other", manifest.training[8:12])):
        local = manifest.model_copy(update={"training": cases, "test": ()})
        path = write_manifest(local, tmp_path / name / "M.json")
        with caplog.at_level(logging.WARNING):
            found = accept_site(AcceptJob(str(place), path, tmp_path / f"out-{name}", device="cpu"))
        dossiers.append(found.dossier.record())
    same, other = dossiers
    assert same["calibration"] is None
    assert "fitted on 2 of the 4 local cases" in caplog.text
    assert other["calibration"] is not None
    assert {row["n"] for row in other["calibration"]["intervals"]} == {0}  # 4 calibrate: none
    assert replace(package, provenance={}).hash != package.hash
