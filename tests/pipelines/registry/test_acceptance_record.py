"""The dossier of a registered version: artifacts and tags in MLflow, without pictures and names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_data import hippocampus_package

from pipelines.registry.acceptance import AcceptJob, accept_site
from pipelines.registry.acceptance_record import ACCEPTANCE_TAG, PLACE_TAG
from pipelines.registry.versions import Registry
from segmed.manifest import read_manifest, write_manifest

SAMPLE = Path(__file__).resolve().parents[3] / "data_manifests" / "hippocampus_sample.json"
CASES = 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A manifest of two cases of the sample."""
    manifest = read_manifest(SAMPLE)
    cut = manifest.model_copy(update={"training": manifest.training[:CASES], "test": ()})
    return write_manifest(cut, tmp_path / "local" / "M.json")


def test_dossier_is_kept_with_the_version(
    working_folder: Path, local: Path, tmp_path: Path
) -> None:
    registry = Registry(working_folder)
    version = registry.register(hippocampus_package().save(tmp_path / "package"), "hippo")
    job = AcceptJob("models:/hippo/1", local, tmp_path / "out", device="cpu")
    found = accept_site(job)
    tags = registry.version("hippo", "1").tags
    assert tags[ACCEPTANCE_TAG].startswith("not accepted at ")
    assert f"on {CASES} cases" in tags[ACCEPTANCE_TAG]
    assert tags[PLACE_TAG] == found.kept
    place = registry.client.download_artifacts(version.run_id, str(found.kept), str(tmp_path))
    kept = {path.name: path.read_text(encoding="utf-8") for path in Path(place).iterdir()}
    assert set(kept) == {"dossier.html", "dossier.json"}
    assert json.loads(kept["dossier.json"])["model"]["version"] == "1"
    assert "data:image" in found.page.read_text(encoding="utf-8")
    assert "data:image/jpeg" not in kept["dossier.html"]
    names = [case.id for case in read_manifest(local).training]
    assert not [name for name in names for text in kept.values() if name in text]


def test_dossier_is_not_kept_where_it_is_not_asked_for(
    working_folder: Path, local: Path, tmp_path: Path
) -> None:
    registry = Registry(working_folder)
    registry.register(hippocampus_package().save(tmp_path / "package"), "hippo")
    job = AcceptJob("models:/hippo/1", local, tmp_path / "out", device="cpu", keeps=False)
    assert accept_site(job).kept is None
    assert ACCEPTANCE_TAG not in registry.version("hippo", "1").tags
