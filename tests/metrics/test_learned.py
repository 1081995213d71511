"""Scores that are a sign of learning, and those that only look like one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segmed.metrics import evaluate_case, scores_table
from segmed.metrics.learned import LEARNED_DICE, doubt_of_learning, mean_dice_of
from segmed.structures import LabelClass

MEMBRANE = (LabelClass(name="membrane", value=1), LabelClass(name="cell", value=2))
"""Two structures that fill the whole image, as in sections of cells."""


def sections(num_cases: int = 6) -> list[np.ndarray]:
    """Images of 20x20 pixels: one to five columns are membrane, all else is cell."""
    found = []
    for number in range(num_cases):
        label = np.full((20, 20), 2, np.uint8)
        label[:, : 1 + number % 5] = 1
        found.append(label)
    return found


def table_of(predictions: list[np.ndarray], references: list[np.ndarray]) -> pd.DataFrame:
    rows = []
    for number, (found, true) in enumerate(zip(predictions, references, strict=True)):
        rows += evaluate_case(
            found, true, labels=MEMBRANE, spacing_mm=(1.0, 1.0), case_id=f"case{number}"
        )
    return scores_table(rows)


def test_image_filled_with_one_structure_is_no_sign_of_learning() -> None:
    references = sections()
    table = table_of([np.full_like(label, 2) for label in references], references)
    assert mean_dice_of(table) > 4 * LEARNED_DICE  # the floor alone would let it pass
    doubt = doubt_of_learning(table)
    assert doubt is not None
    assert "filled with cell alone" in doubt


def test_image_filled_but_for_stray_pixels_is_none_either() -> None:
    references, rng = sections(), np.random.default_rng(0)
    noisy = [np.where(rng.random(each.shape) < 0.02, 1, 2).astype(np.uint8) for each in references]
    table = table_of(noisy, references)
    cells = table[table["label"] == "cell"]
    assert mean_dice_of(cells) > 8 * LEARNED_DICE
    assert "filled with cell alone" in str(doubt_of_learning(cells))


def test_membrane_found_in_part_is_a_sign_of_learning() -> None:
    references = sections()
    shifted = [np.roll(label, 1, axis=1) for label in references]
    assert doubt_of_learning(table_of(shifted, references)) is None


def test_overlap_below_the_floor_is_no_sign_of_learning() -> None:
    references = [np.where(label == 2, 0, label) for label in sections()]
    elsewhere = [np.roll(label, 10, axis=1) for label in references]
    doubt = doubt_of_learning(table_of(elsewhere, references))
    assert doubt == f"the mean Dice on held-out cases is 0.000, below {LEARNED_DICE}"


def test_empty_predictions_are_no_sign_of_learning() -> None:
    references = sections()
    table = table_of([np.zeros_like(label) for label in references], references)
    assert "0.000" in str(doubt_of_learning(table))


def test_cases_without_any_structure_are_no_sign_of_learning() -> None:
    nothing = [np.zeros((5, 5), np.uint8)] * 3
    assert doubt_of_learning(table_of(nothing, nothing)) == (
        "no structure of a held-out case could be scored"
    )


@pytest.mark.parametrize("num_cases", [1, 2])
def test_few_cases_segmented_exactly_are_a_sign_of_learning(num_cases: int) -> None:
    references = sections(num_cases)
    assert doubt_of_learning(table_of(references, references)) is None


def test_table_of_an_older_version_is_compared_with_the_floor_alone() -> None:
    references = sections()
    table = table_of([np.full_like(label, 2) for label in references], references)
    assert doubt_of_learning(table.drop(columns="voxels_image")) is None
