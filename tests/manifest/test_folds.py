"""Folds split no patient, are even, and come out alike every time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmed.errors import ManifestError
from segmed.manifest import Case, assign_folds


def cases_of(sizes: list[int]) -> list[Case]:
    return [
        Case(id=f"g{group}-{number}", group=f"g{group}", image=("x.nii",))
        for group, size in enumerate(sizes)
        for number in range(size)
    ]


@given(sizes=st.lists(st.integers(1, 6), min_size=5, max_size=25), seed=st.integers(0, 99))
def test_no_group_is_split_and_folds_are_even(sizes: list[int], seed: int) -> None:
    folded = assign_folds(cases_of(sizes), num_folds=5, seed=seed)
    fold_of = {(case.group, case.fold) for case in folded}
    assert len(fold_of) == len(sizes)
    counts = Counter(case.fold for case in folded)
    assert set(counts) == set(range(5))
    assert max(counts.values()) - min(counts.values()) <= max(sizes)


@given(order=st.permutations(range(12)), seed=st.integers(0, 9))
def test_the_order_of_cases_does_not_matter(order: list[int], seed: int) -> None:
    cases = cases_of([2, 1, 1, 3, 1, 1, 2, 1])
    shuffled = [cases[number] for number in order]
    first = {case.id: case.fold for case in assign_folds(cases, num_folds=3, seed=seed)}
    again = {case.id: case.fold for case in assign_folds(shuffled, num_folds=3, seed=seed)}
    assert first == again


def test_another_seed_gives_other_folds() -> None:
    cases = cases_of([1] * 20)
    assert assign_folds(cases, seed=0) != assign_folds(cases, seed=1)


@pytest.mark.parametrize(
    ("sizes", "folds", "message"),
    [
        ([1, 1, 1], 5, "3 groups cannot fill 5 folds: request at most 3 folds"),
        ([1] * 4, 1, "at least 2 are needed"),
        ([], 2, "no labelled case; at least 2 groups are needed to hold cases out: add"),
        ([1], 2, "1 labelled case; at least 2 groups"),
        ([7], 2, "7 labelled cases, all of one group .* state them with --group-by"),
    ],
)
def test_folds_that_cannot_be_filled_are_refused_with_what_would_do(
    sizes: list[int], folds: int, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        assign_folds(cases_of(sizes), num_folds=folds)
