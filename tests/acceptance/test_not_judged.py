"""Findings that too few cases can show are stated as not judged, and fulfil no criterion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sites import ScoredCase, make_site, part, score_bank

from segmed.acceptance.archive_facts import ArchiveFacts
from segmed.acceptance.criteria import Criteria, Criterion
from segmed.acceptance.dossier import Dossier, make_dossier
from segmed.acceptance.page import dossier_content
from segmed.archive.drift import MIN_STUDIES, DriftRow

BANK = 40


@pytest.fixture(scope="module")
def bank(shared_data: Callable[[str], Path]) -> list[ScoredCase]:
    return score_bank(shared_data("hippocampus"), BANK)


def judged(
    bank: list[ScoredCase], number: int, *measures: str, archive: ArchiveFacts | None = None
) -> Dossier:
    """Dossier of so many sound cases by criteria that allow no finding of these measures."""
    model, results = make_site(bank, 0)
    few = part(results, results.cases[:number])
    criteria = Criteria(accept=tuple(Criterion(measure=one, at_most=0) for one in measures))
    return make_dossier(model, few, criteria, archive=archive)


def row(number: int, *, is_alarm: bool = False) -> DriftRow:
    return DriftRow("spacing_mm:0", 30, number, 1.0, 1.0, 0.0, 1.0, is_alarm=is_alarm)


def test_drift_of_seven_cases_is_not_judged_and_not_accepted(bank: list[ScoredCase]) -> None:
    few, enough = judged(bank, MIN_STUDIES - 1, "drift"), judged(bank, MIN_STUDIES, "drift")
    words = f"not judged ({MIN_STUDIES - 1} cases, at least {MIN_STUDIES} needed)"
    assert few.accept[0].found == words
    assert few.reasons == [f"drift: {words}, needed at most 0"]
    assert few.record()["verdict"]["criteria"][0]["unknown"] == words
    assert enough.is_accepted
    assert enough.accept[0].value == 0.0


def test_drift_that_is_not_judged_is_stated_where_no_criterion_asks_for_it(
    bank: list[ScoredCase],
) -> None:
    few = judged(bank, 7, "missed")
    assert few.is_accepted
    (drift, *_) = few.unjudged
    assert drift.startswith("drift: not judged (7 cases")
    assert drift in dossier_content(few).sentences
    assert drift in few.record()["not_judged"]


def test_archive_that_was_judged_judges_drift_for_few_cases(bank: list[ScoredCase]) -> None:
    for rows, found in (
        ((row(MIN_STUDIES),), 0.0),
        ((row(MIN_STUDIES, is_alarm=True),), 1.0),
        ((row(MIN_STUDIES - 1),), None),
    ):
        one = judged(bank, 5, "drift", archive=ArchiveFacts(drift=rows))
        assert one.accept[0].value == found


def test_measures_without_a_value_say_why(bank: list[ScoredCase]) -> None:
    model, results = make_site(bank, 0)
    names = ("shifts", "dice_loss", "corrected", "below", "drift")
    criteria = Criteria(accept=tuple(Criterion(measure=one, at_most=0) for one in names))
    bare = replace(model, card=None, norms={})
    found = {line.measure: line for line in make_dossier(bare, results, criteria).accept}
    assert found["below"].value is not None
    for name, word in (
        ("shifts", "keeps no scores of held-out cases"),
        ("dice_loss", "keeps no such score"),
        ("corrected", "only a monthly dossier"),
        ("drift", "keeps no distributions"),
    ):
        assert word in found[name].found
        assert not found[name].is_fulfilled


def test_groups_that_were_not_compared_are_stated(bank: list[ScoredCase]) -> None:
    model, results = make_site(bank, 0)
    criteria = Criteria(accept=(Criterion(measure="groups", at_most=0),))
    assert not make_dossier(model, results, criteria).unjudged
    for values, word in (
        ({}, "no scanner, protocol, age or sex"),
        ({case: {"scanner": "One"} for case in results.cases}, "all cases have the same"),
        ({case: {"scanner": "One"} for case in results.cases[:4]}, "all cases have the same"),
        (
            {case: {"sex": "female" if n < 3 else "male"} for n, case in enumerate(results.cases)},
            "no group and its rest have 5 cases each",
        ),
    ):
        results.values = values
        (why,) = make_dossier(model, results, criteria).unjudged
        assert why.startswith("groups: not compared (")
        assert word in why
