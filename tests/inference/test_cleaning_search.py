"""Search for post-processing on real references with faults that networks make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from segmed.encoding import LabelEncoding
from segmed.inference.cleaning_effects import CountedCase, chosen, effects_of
from segmed.inference.cleaning_search import CleaningSearch, search_cleaning
from segmed.inference.component_counts import count_case
from segmed.inference.postprocessing import Cleaning, clean, of_structures
from segmed.io import grid_of, read_label, write_label
from segmed.manifest import Manifest, read_manifest, read_reference
from segmed.metrics import evaluate_case, scores_table
from segmed.plan import Inference
from segmed.structures import LabelClass

Fault = Callable[[np.ndarray, int], None]
"""Changes a label map in place; gets the number of the case."""

PLAIN = LabelEncoding((LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2)))


@pytest.fixture(scope="module")
def sample(sample_manifest_path: Path) -> Manifest:
    manifest = read_manifest(sample_manifest_path)
    return manifest.model_copy(update={"training": manifest.training[:20]})


def island(label: np.ndarray, number: int) -> None:
    """A false component of the anterior in a corner, as large as the case's number says."""
    corner = label[-(2 + number % 3) :, :2, :2]
    corner[corner == 0] = 1


def hole(label: np.ndarray, number: int) -> None:
    """Background within the posterior."""
    inside = np.argwhere(label == 2)
    centre = inside[np.abs(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
    label[tuple(centre)] = 0


def predicted(manifest: Manifest, folder: Path, *faults: Fault) -> dict[str, Path]:
    """References with faults, written as predictions."""
    found = {}
    for number, case in enumerate(manifest.training):
        reference = read_reference(manifest, manifest.label_path(case))
        values = np.asarray(reference)[0].copy()
        for fault in faults:
            fault(values, number)
        found[case.id] = folder / f"{case.id}.nii.gz"
        folder.mkdir(exist_ok=True)
        write_label(found[case.id], torch.from_numpy(values), like=reference)
    return found


def scored(manifest: Manifest, predictions: dict[str, Path]) -> pd.DataFrame:
    rows = []
    for case in manifest.training:
        label = read_label(predictions[case.id])
        reference = read_reference(manifest, manifest.label_path(case))
        rows += evaluate_case(
            label[0],
            reference[0],
            labels=manifest.encoding,
            spacing_mm=grid_of(label).spacing_mm,
            case_id=case.id,
        )
    return scores_table(rows)


def searched(manifest: Manifest, folder: Path, *faults: Fault) -> CleaningSearch:
    predictions = predicted(manifest, folder, *faults)
    return search_cleaning(predictions, manifest, scored(manifest, predictions))


def steps_for(labels: tuple[LabelClass, ...]) -> list[Cleaning]:
    kinds = [
        step
        for label in labels
        for step in (
            Cleaning("keep_largest", label.value),
            Cleaning("remove_small", label.value, 3),
            Cleaning("remove_small", label.value, min_ml=0.02),
            Cleaning("fill_holes", label.value),
        )
    ]
    return of_structures(kinds, labels)


@pytest.mark.parametrize(
    "encoding",
    [
        PLAIN,
        replace(PLAIN, ignore_value=9),
        LabelEncoding(
            (
                LabelClass(name="whole", value=1, region=(1, 2)),
                LabelClass(name="posterior", value=2, region=(2,)),
            )
        ),
    ],
    ids=["plain", "ignored voxels", "regions"],
)
def test_counts_give_the_dice_of_the_cleaned_map(sample: Manifest, encoding: LabelEncoding) -> None:
    case = sample.training[0]
    reference = np.asarray(read_reference(sample, sample.label_path(case)))[0]
    prediction = np.roll(reference, 1, axis=0)
    island(prediction, 2)
    hole(prediction, 0)
    prediction[:1, -1:, -1:] = 2
    if encoding.ignore_value is not None:
        reference = reference.copy()
        reference[-3:, :1] = reference[10:12] = encoding.ignore_value
    spacing_mm = (1.0, 1.0, 1.0)
    counts = count_case(prediction, reference, encoding, voxel_size=1e-3)
    for step in steps_for(encoding.labels):
        after = clean(prediction, [step], spacing_mm=spacing_mm)
        rows = evaluate_case(
            after, reference, labels=encoding, spacing_mm=spacing_mm, case_id="one"
        )
        number = [label.value for label in encoding.labels].index(step.value)
        found = counts[step.value].after([step])
        assert found.dice == pytest.approx(rows[number].dice, abs=1e-12), step
        assert found.prediction == rows[number].voxels_prediction


def test_step_that_helps_in_most_cases_is_chosen_and_scored_without_its_own_cases(
    sample: Manifest, tmp_path: Path
) -> None:
    found = searched(sample, tmp_path / "islands", island)
    assert {(step.step, step.value) for step in found.steps} == {("keep_largest", 1)}
    (effect,) = found.used
    assert (effect.better, effect.worse) == (20, 0)
    assert effect.p_corrected < 0.001
    assert set(found.nested) == {f"fold {fold}" for fold in sample.folds}
    assert all(found.steps == steps for steps in found.nested.values())
    assert found.gain is not None
    assert found.gain.low > 0
    assert (found.table["dice"] == 1.0).all(), "nothing but the islands was wrong"
    assert list(found.table["case"]) == [c.id for c in sample.training for _ in sample.labels]


def test_several_faults_are_met_by_a_step_each(sample: Manifest, tmp_path: Path) -> None:
    found = searched(sample, tmp_path / "both", island, hole)
    assert {(step.step, step.value) for step in found.steps} == {
        ("keep_largest", 1),
        ("fill_holes", 2),
    }
    assert found.table["dice"].min() > 0.999, "one hole opens to the side"


def test_step_without_significance_is_not_used(sample: Manifest, tmp_path: Path) -> None:
    def seldom(label: np.ndarray, number: int) -> None:
        if number < 4:
            island(label, number)

    found = searched(sample, tmp_path / "seldom", seldom)
    assert not found.steps
    tried = {(e.cleaning.step, e.cleaning.value): e for e in found.effects}
    effect = tried["keep_largest", 1]
    assert effect.after > effect.before
    assert effect.verdict == "not significant"
    assert found.gain is None


def test_removal_of_a_true_component_is_no_help(sample: Manifest, tmp_path: Path) -> None:
    """Islands help to lose in 17 cases; in three the larger component is the false one."""

    def larger_in_three(label: np.ndarray, number: int) -> None:
        island(label, number)
        if number < 3:
            label[label == 2] = 0
            label[:1, -1:, -1:] = 2
            label[-2:, -4:, -4:] = 2

    found = searched(sample, tmp_path / "larger", larger_in_three)
    assert all(step.value == 1 for step in found.steps)


def test_frames_of_one_patient_are_one_observation(sample: Manifest, tmp_path: Path) -> None:
    cases = tuple(
        case.model_copy(update={"group": f"patient{number % 4}"})
        for number, case in enumerate(sample.training)
    )
    found = searched(sample.model_copy(update={"training": cases}), tmp_path / "few", island)
    assert found.groups == 4
    assert not found.steps, "four patients cannot show anything at 0.05"
    assert max(effect.better for effect in found.effects) == 4


def test_cases_of_a_single_fold_are_dealt_into_parts(sample: Manifest, tmp_path: Path) -> None:
    cases = tuple(case.model_copy(update={"fold": 0}) for case in sample.training)
    found = searched(sample.model_copy(update={"training": cases}), tmp_path / "one", island)
    assert set(found.nested) == {f"part {number}" for number in range(5)}
    assert found.steps


def test_choice_that_lowers_the_dice_of_the_cases_left_out_is_not_used(
    sample: Manifest, tmp_path: Path
) -> None:
    """In one fold each true structure is in two pieces, where all others have false islands."""
    odd = sample.training[0].fold

    def by_fold(label: np.ndarray, number: int) -> None:
        if sample.training[number].fold != odd:
            label[-1:, :1, :1] = 1
        else:
            inside = np.argwhere(label == 1)
            middle = label[int(np.median(inside[:, 0]))]
            middle[middle == 1] = 0

    found = searched(sample, tmp_path / "odd", by_fold)
    assert Cleaning("keep_largest", 1) in found.nested[f"fold {odd}"]
    assert found.gain is not None
    assert found.gain.after < found.gain.before
    assert not found.steps
    assert (found.table["dice"] < 1.0).sum() == len(sample.training), "the scores as they were"


def test_choice_that_no_part_of_the_cases_would_make_is_not_used(
    sample: Manifest, tmp_path: Path
) -> None:
    few = sample.model_copy(update={"training": sample.training[:8]})
    found = searched(few, tmp_path / "few", island)
    assert found.withdrawn == (Cleaning("keep_largest", 1),)
    assert not found.steps
    assert found.gain is None
    assert (found.table["dice"] < 1.0).sum() == 8, "the scores as they were"


def test_steps_that_a_plan_has_are_not_tried_again(sample: Manifest, tmp_path: Path) -> None:
    predictions = predicted(sample, tmp_path / "again", island)
    table = scored(sample, predictions)
    rules = Inference(keep_largest=(1,))
    found = search_cleaning(predictions, sample, table, rules=rules)
    tried = {(effect.cleaning.step, effect.cleaning.value) for effect in found.effects}
    assert ("keep_largest", 1) not in tried
    assert ("keep_largest", 2) in tried


def test_sizes_of_pictures_are_in_pixels() -> None:
    truth = np.zeros((64, 64), np.int32)
    truth[8:28, 8:28] = 1
    found = truth.copy()
    found[50:52, 50:52] = 1
    encoding = LabelEncoding((LabelClass(name="vessel", value=1),))
    counted = [
        CountedCase(str(n), str(n), "part", count_case(found, truth, encoding, voxel_size=1.0))
        for n in range(9)
    ]
    effects = effects_of(counted, encoding.labels, in_ml=False)
    sizes = [e.cleaning.min_voxels for e in effects if e.cleaning.step == "remove_small"]
    assert sizes == [4, 20, 80]
    assert [step.step for step in chosen(effects)] == ["keep_largest"]
