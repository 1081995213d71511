"""Models that evidence compares with: of the same structures, and trained on none of the cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_data import hippocampus_package

from pipelines.registry.acceptance import cases_of, rival_packages
from segmed.errors import UsageError
from segmed.manifest import LabelClass, Manifest, data_hash, read_manifest, write_manifest
from segmed.package import ModelPackage
from segmed.package.training_cases import SEEN, image_mark

SAMPLE = Path(__file__).resolve().parents[3] / "data_manifests" / "hippocampus_sample.json"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(SAMPLE)


def check(manifest: Manifest, rival: ModelPackage, folder: Path, fold: int | None = None) -> None:
    """Check a rival on the cases of a fold, or on all."""
    cases = manifest.training if fold is None else manifest.split(fold)[1]
    path = str(rival.save(folder / "rival"))
    found = rival_packages(path, [hippocampus_package()], manifest, cases, fold)
    assert [package.hash for package in found] == [rival.hash]


def test_rival_that_has_seen_nothing_is_taken(manifest: Manifest, tmp_path: Path) -> None:
    check(manifest, hippocampus_package(1), tmp_path)


def test_rival_of_other_structures_is_refused_and_both_are_named(
    manifest: Manifest, tmp_path: Path
) -> None:
    rival = hippocampus_package(1)
    labels = (rival.plan.labels[0], LabelClass(name="tail", value=2))
    other = replace(rival, plan=rival.plan.model_copy(update={"labels": labels}))
    with pytest.raises(UsageError, match="segments anterior, tail, the model anterior, posterior"):
        check(manifest, other, tmp_path)


def test_rival_that_was_trained_on_a_case_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    fold = manifest.folds[0]
    trained = {"fold": fold, "data_hash": data_hash(manifest, manifest.split(fold)[0])}
    rival = replace(hippocampus_package(1), provenance=trained)
    with pytest.raises(UsageError, match="cases were trained on"):
        check(manifest, rival, tmp_path)
    check(manifest, rival, tmp_path, fold)


@pytest.mark.parametrize("is_rival", [True, False])
def test_images_of_a_training_are_refused_in_another_set(
    manifest: Manifest, tmp_path: Path, *, is_rival: bool
) -> None:
    """The same images under other names: only their content shows that they were trained on."""
    first = manifest.training[0]
    package = replace(hippocampus_package(1), provenance={SEEN: [image_mark(manifest, first)]})
    renamed = tuple(
        case.model_copy(update={"id": f"local{n}", "group": f"local{n}"})
        for n, case in enumerate(manifest.training[:3])
    )
    local = manifest.model_copy(update={"training": renamed, "test": ()})
    path = write_manifest(local, tmp_path / "local" / "M.json")
    found = read_manifest(path)

    def judge() -> None:
        if is_rival:
            check(found, package, tmp_path)
        else:
            cases_of([package], found, None)

    with pytest.raises(UsageError, match=r"1 of 3 cases are images that trained.*'local0'"):
        judge()
