"""Quality models of packages: fitted on held-out cases, stored in the package, then used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_data import hippocampus_package

from pipelines.comparing.predicted_quality import flags_when_cleaned, out_of_fold_cases
from segmed.errors import PackageError
from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.inference.postprocessing import Cleaning, with_steps
from segmed.manifest import Manifest, read_manifest
from segmed.metrics.measures import FLAGGED
from segmed.metrics.training_norms import RANGES, RESULTS
from segmed.package import ModelPackage
from segmed.package.ensemble import join_packages
from segmed.package.predicted_quality import with_quality
from segmed.quality.cases import (
    QUALITY_CASES_FILE,
    QualityCases,
    read_quality_cases,
    with_table,
    write_quality_cases,
)
from segmed.quality.identity import PREDICTED_QUALITY
from segmed.quality.package_form import quality_model_in
from segmed.report.model_comparison import FoldResult

NUMBER = 12


@pytest.fixture(scope="module")
def manifest(sample_manifest_path: Path) -> Manifest:
    return read_manifest(sample_manifest_path)


@pytest.fixture(scope="module")
def scored(
    manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, QualityCases, FoldResult]:
    """Cases as `segmed train` scores them, by an untrained network."""
    folder = tmp_path_factory.mktemp("fold")
    predictor = Predictor(hippocampus_package(), device="cpu", engine="torch")
    cases = manifest.training[:NUMBER]
    found = score_cases(
        predictor, manifest, cases, out_dir=folder / "predictions", with_features=True
    )
    write_quality_cases(folder / QUALITY_CASES_FILE, found.quality_cases)
    fold = FoldResult("unet", 0, found.table, [], folder / "package", found.predictions)
    return folder, found.quality_cases, fold


def test_features_and_scores_of_every_case_are_kept(
    scored: tuple[Path, QualityCases, FoldResult], manifest: Manifest
) -> None:
    folder, cases, fold = scored
    assert list(cases) == [case.id for case in manifest.training[:NUMBER]]
    assert read_quality_cases(folder / QUALITY_CASES_FILE).keys() == cases.keys()
    again = with_table(cases, fold.table)
    for name, case in cases.items():
        assert case.group == manifest.case(name).group
        for label, item in case.truth.items():
            np.testing.assert_equal(again[name].truth[label], item)
    assert out_of_fold_cases([fold]).keys() == cases.keys()


def test_scores_after_post_processing_replace_those_before(
    scored: tuple[Path, QualityCases, FoldResult],
) -> None:
    _, cases, fold = scored
    changed = fold.table.assign(dice=0.123, both_empty=False)
    found = out_of_fold_cases([fold], changed)
    assert {item.dice for case in found.values() for item in case.truth.values()} == {0.123}
    assert cases.keys() == found.keys()


def test_flags_that_cleaning_removes_are_not_among_those_that_drift_is_judged_by(
    scored: tuple[Path, QualityCases, FoldResult], manifest: Manifest, tmp_path: Path
) -> None:
    """Results with an island far from the structure, which keeping the largest piece removes."""
    _, cases, fold = scored
    islands = {}
    for name in cases:
        path = manifest.label_path(manifest.case(name))
        assert path is not None
        whole = nib.load(path)
        values = np.asarray(whole.dataobj).astype(np.uint8)
        values[1, 1, 1] = 1
        islands[name] = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(values, whole.affine), islands[name])
    raw = hippocampus_package()
    any_value = dict.fromkeys(("volume_ml", "elongation", "compactness"), (0.0, 1e6))
    one = {"cases": 9, "components": 1, "cut": 1.0, "present": 1.0, **any_value}
    ranges = [{"label": label.name, **one} for label in raw.plan.labels]
    rules = with_steps(
        raw.plan.inference, [Cleaning("keep_largest", label.value) for label in raw.plan.labels]
    )
    package = replace(raw, provenance={RANGES: ranges})
    cleaning = replace(package, plan=raw.plan.model_copy(update={"inference": rules}))
    shares = []
    for either in (package, cleaning):
        flags = flags_when_cleaned(islands, either)
        assert flags.keys() == cases.keys()
        found = out_of_fold_cases([fold], fold.table, flags)
        assert {name: case.is_flagged for name, case in found.items()} == flags
        norms = with_quality(either, found, basis="held_out").provenance[RESULTS][FLAGGED]
        shares.append(sum(norms) / len(norms))
    assert shares == [1.0, 0.0]


def test_a_training_of_an_earlier_version_gives_no_model(
    scored: tuple[Path, QualityCases, FoldResult], tmp_path: Path
) -> None:
    _, _, fold = scored
    older = replace(fold, predictions={"x": tmp_path / "predictions" / "x.nii.gz"})
    assert out_of_fold_cases([fold, older]) == {}
    package = replace(hippocampus_package(), provenance={PREDICTED_QUALITY: {}, "fold": 1})
    assert with_quality(package, {}, basis="out_of_fold").provenance == {"fold": 1}


def test_a_package_states_the_quality_of_what_it_segments(
    scored: tuple[Path, QualityCases, FoldResult], manifest: Manifest, tmp_path: Path
) -> None:
    _, cases, _ = scored
    package = with_quality(hippocampus_package(), cases, basis="held_out")
    assert package.hash == hippocampus_package().hash
    loaded = ModelPackage.load(package.save(tmp_path / "package"))
    predictor = Predictor(loaded, device="cpu", engine="torch")
    image = manifest.image_paths(manifest.training[0])[0]
    found = predictor.predict(image)
    assert found.quality is not None
    assert {item.label for item in found.quality.structures} == {"anterior", "posterior"}
    first = cases[manifest.training[0].id]
    for item in found.quality.structures:
        assert item.volume_ml == pytest.approx(first.truth[item.label].predicted_ml)
    assert found.features is not None
    for label, row in first.features.items():
        assert found.features[label] == pytest.approx(row)
    plain = Predictor(hippocampus_package(), device="cpu", engine="torch").predict(image)
    assert plain.quality is plain.features is None
    assert torch.equal(plain.label, found.label)


def test_an_ensemble_has_a_model_of_its_own_and_repeats_no_members(
    scored: tuple[Path, QualityCases, FoldResult],
) -> None:
    _, cases, _ = scored
    members = [
        with_quality(hippocampus_package(seed), cases, basis="held_out") for seed in range(2)
    ]
    joined = with_quality(join_packages(members), cases, basis="out_of_fold")
    assert all(PREDICTED_QUALITY not in entry for entry in joined.provenance["members"])
    model = quality_model_in(joined.provenance)
    assert model is not None
    assert model.basis == "out_of_fold"
    assert model.calibrated == NUMBER // 2


def test_several_packages_have_their_agreement_as_a_feature_and_no_model(
    manifest: Manifest, tmp_path: Path
) -> None:
    predictor = Predictor(
        [hippocampus_package(0), hippocampus_package(1)], device="cpu", engine="torch"
    )
    found = score_cases(
        predictor, manifest, manifest.training[:1], out_dir=tmp_path, with_features=True
    )
    (case,) = found.quality_cases.values()
    present = [row for row in case.features.values() if row]
    assert present
    assert all(0.0 <= row["agreement"] <= 1.0 for row in present)
    assert predictor.observer.model is None


def test_a_damaged_model_is_refused_and_one_of_another_version_left_out() -> None:
    with pytest.raises(PackageError, match="predicted_quality"):
        quality_model_in({PREDICTED_QUALITY: {"schema_version": 1, "features": 3}})
    assert quality_model_in({PREDICTED_QUALITY: {"schema_version": 99}}) is None
    assert quality_model_in({}) is None
