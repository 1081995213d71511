"""The gate decides on cases that neither model has seen, and its evidence names the corrections."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_data import hippocampus_package

from pipelines.registry.card import card_of
from pipelines.registry.gate_cases import gate_cases
from pipelines.registry.promotion import promote
from pipelines.registry.reference import CHALLENGER, CHAMPION
from pipelines.registry.versions import Registry
from segmed.errors import UsageError
from segmed.manifest import Case, Manifest, read_manifest, write_manifest
from segmed.manifest.schema import CaseCorrection
from segmed.package import ModelPackage
from segmed.package.ensemble import join_packages, mix_packages
from segmed.package.training_cases import CORRECTIONS, SEEN, seen_by, seen_record

CORRECTED = CaseCorrection(
    author="Ada", date="2026-11-28", origin="page", study="0f3a", model="f" * 64
)


@pytest.fixture
def manifest(sample_manifest_path: Path) -> Manifest:
    """The bundled sample."""
    return read_manifest(sample_manifest_path)


def trained_on(manifest: Manifest, cases: Sequence[Case], seed: int = 0) -> ModelPackage:
    """A package that records these cases as its training."""
    seen = seen_record(manifest.model_copy(update={"training": tuple(cases)}))
    return replace(hippocampus_package(seed), provenance=seen)


def both(champion: ModelPackage, challenger: ModelPackage) -> dict[str, ModelPackage]:
    """The two models of a gate."""
    return {CHAMPION: champion, CHALLENGER: challenger}


def test_all_test_cases_decide_where_no_model_has_seen_any(manifest: Manifest) -> None:
    package = trained_on(manifest, manifest.training)
    found = gate_cases(manifest, both(package, package))
    assert found.cases == manifest.test
    assert found.lines() == ["neither model has seen any of the 6 cases"]


@pytest.mark.parametrize("who", [CHAMPION, CHALLENGER])
def test_case_that_either_model_has_seen_does_not_decide(manifest: Manifest, who: str) -> None:
    honest = trained_on(manifest, manifest.training)
    spoilt = trained_on(manifest, [*manifest.training, *manifest.test[1:3]])
    found = gate_cases(manifest, {**both(honest, honest), who: spoilt})
    assert found.cases == (manifest.test[0], *manifest.test[3:])
    assert found.lines() == [f"left out: 2 test cases that the {who} has seen in training"]
    assert found.record()["seen_cases_left_out"] == {CHAMPION: 0, CHALLENGER: 0, who: 2}


def test_image_is_recognised_under_another_name_and_without_its_label(
    manifest: Manifest, tmp_path: Path
) -> None:
    case = manifest.test[0]
    shutil.copy(manifest.image_paths(case)[0], tmp_path / "other.nii.gz")
    other = Case(id="other", group="other", image=("other.nii.gz",), fold=0)
    elsewhere = manifest.model_copy(update={"training": (other,), "test": (), "root": tmp_path})
    package = trained_on(elsewhere, elsewhere.training)
    found = gate_cases(manifest, both(package, package))
    assert found.cases == manifest.test[1:]


def test_model_without_a_record_is_named_and_the_gate_still_decides(manifest: Manifest) -> None:
    package = trained_on(manifest, manifest.training)
    found = gate_cases(manifest, both(hippocampus_package(), package))
    assert found.cases == manifest.test
    assert found.unknown == (CHAMPION,)
    assert found.lines() == [
        "the champion does not record the images of its training: it may have seen some of the "
        "cases"
    ]


def test_set_of_seen_cases_alone_and_one_without_cases_are_refused(manifest: Manifest) -> None:
    spoilt = trained_on(manifest, manifest.test)
    with pytest.raises(UsageError, match=r"all 6 test cases .*\(6 by the champion\)"):
        gate_cases(manifest, both(spoilt, hippocampus_package()))
    with pytest.raises(UsageError, match="no labelled test cases"):
        gate_cases(manifest.model_copy(update={"test": ()}), both(spoilt, spoilt))


def corrected(case: Case, name: str) -> Case:
    """The case as an accepted correction."""
    return case.model_copy(update={"id": name, "correction": CORRECTED})


def test_corrections_are_named_of_the_training_and_of_the_cases(manifest: Manifest) -> None:
    training = [corrected(manifest.training[0], "corrected-0f3a"), *manifest.training[1:]]
    package = trained_on(manifest, training)
    test = (corrected(manifest.test[0], "corrected-77aa"), *manifest.test[1:])
    found = gate_cases(
        manifest.model_copy(update={"test": test}),
        both(trained_on(manifest, manifest.training), package),
    )
    assert found.lines()[1:] == [
        "the challenger was trained on 1 accepted correction: corrected-0f3a",
        "the cases include 1 accepted correction: corrected-77aa",
    ]
    assert "- accepted corrections among the training cases: 1" in card_of(package)


def test_ensembles_keep_the_record_once(manifest: Manifest) -> None:
    record = seen_record(manifest)
    first, second = (trained_on(manifest, manifest.training, seed) for seed in (0, 1))
    joined = join_packages([first, second], record)
    assert seen_by(joined) == frozenset(record[SEEN])
    assert all(SEEN not in member for member in joined.provenance["members"])
    other = replace(joined, architecture="unetpp")
    mixed = mix_packages([joined, other], {SEEN: joined.provenance[SEEN]})
    assert seen_by(mixed) == seen_by(joined)


def test_evidence_of_a_promotion_names_corrections_and_rests_on_unseen_cases(
    manifest: Manifest, working_folder: Path
) -> None:
    labels = hippocampus_package().plan.labels
    training = [corrected(manifest.training[0], "corrected-0f3a"), *manifest.training[1:]]
    champion = trained_on(manifest, [*manifest.training, manifest.test[2]])
    challenger = trained_on(manifest, training, seed=1)
    registry = Registry(working_folder)
    for number, package in enumerate((champion, challenger)):
        place = package.save(working_folder / f"package{number}")
        registry.register(place, "hippocampus", alias=(CHAMPION, CHALLENGER)[number])
    path = write_manifest(manifest.model_copy(update={"labels": labels}), working_folder / "m.json")
    decision = promote("hippocampus@challenger", manifest=path, folder=working_folder)
    assert decision.verdict is not None
    assert decision.verdict.cases == 5
    said = "\n".join(decision.lines())
    assert "left out: 1 test case that the champion has seen in training" in said
    assert "the challenger was trained on 1 accepted correction: corrected-0f3a" in said
    (kept,) = (working_folder / "mlartifacts").rglob("decision.json")
    record: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    assert record["corrections_trained_on"] == ["corrected-0f3a"]
    assert record["deciding_cases"] == 5
    assert not any(case.id in kept.read_text(encoding="utf-8") for case in manifest.test)
    assert CORRECTIONS in challenger.provenance
