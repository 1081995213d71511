"""Dossiers of sites made of real cases: sound ones pass, planted faults are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sites import ScoredCase, make_site, mean_dice, score_bank

from pipelines.registry.acceptance import DEFAULT_CRITERIA
from segmed.acceptance.criteria import Criteria, Criterion, read_criteria
from segmed.acceptance.dossier import Dossier, make_dossier

BANK = 84
FEW_SEEDS, SEEDS = 3, 20


@pytest.fixture(scope="module")
def bank(shared_data: Callable[[str], Path]) -> list[ScoredCase]:
    return score_bank(shared_data("hippocampus"), BANK)


def dossier_of(bank: list[ScoredCase], seed: int, **fault: object) -> Dossier:
    model, results = make_site(bank, seed, **fault)
    return make_dossier(model, results, read_criteria(DEFAULT_CRITERIA))


def is_sound(dossier: Dossier) -> bool:
    return dossier.is_accepted and not dossier.bound.withdrawn


def names_group(dossier: Dossier, value: str) -> bool:
    worse = {(row.kind, row.value) for row in dossier.groups if row.is_worse}
    named = any(value in reason for reason in dossier.bound.withdrawn)
    return worse == {("scanner", value)} and named and not dossier.is_accepted


def names_shift(dossier: Dossier) -> bool:
    reasons = " ".join(dossier.bound.withdrawn)
    has_both = "site shift: " in reasons and "drift: intensity:0" in reasons
    return has_both and not dossier.is_accepted


def test_bank_is_what_a_usable_and_a_faulty_model_give(bank: list[ScoredCase]) -> None:
    _, sound = make_site(bank, 0)
    _, faulty = make_site(bank, 0, shifted=True)
    assert 0.8 < mean_dice(sound.table) < 0.97
    assert mean_dice(faulty.table) < mean_dice(sound.table) - 0.1


@pytest.mark.parametrize("seed", range(FEW_SEEDS))
def test_sound_site_is_accepted_and_planted_faults_are_named(
    bank: list[ScoredCase], seed: int
) -> None:
    sound = dossier_of(bank, seed)
    assert is_sound(sound), sound.reasons + sound.findings
    assert names_group(dossier_of(bank, seed, faulty_scanner="Bolt Three"), "Bolt Three")
    assert names_shift(dossier_of(bank, seed, shifted=True))


@pytest.mark.slow
def test_error_rates_over_20_seeds(bank: list[ScoredCase], record_property: Callable) -> None:
    counts = {
        "sound sites accepted": sum(is_sound(dossier_of(bank, s)) for s in range(SEEDS)),
        "faulty scanners named": sum(
            names_group(dossier_of(bank, s, faulty_scanner="Acme Two"), "Acme Two")
            for s in range(SEEDS)
        ),
        "shifts named": sum(names_shift(dossier_of(bank, s, shifted=True)) for s in range(SEEDS)),
    }
    for name, count in counts.items():
        record_property(name, count)
    assert min(counts.values()) >= SEEDS - 1, counts


def test_record_is_json_with_every_part(bank: list[ScoredCase]) -> None:
    record = dossier_of(bank, 0).record()
    assert json.loads(json.dumps(record, allow_nan=False)).keys() == record.keys()
    parts = {"verdict", "bound", "scores", "groups", "refused", "drift", "drift_baseline", "cost"}
    assert parts <= set(record)
    first = next(row for row in record["scores"] if row["metric"] == "dice")
    assert first["ci_low"] < first["mean"] < first["ci_high"]
    assert first["card_ci_low"] < first["card"] < first["card_ci_high"]


def test_record_and_its_values_name_no_case(bank: list[ScoredCase]) -> None:
    model, results = make_site(bank, 0)
    text = json.dumps(make_dossier(model, results, read_criteria(DEFAULT_CRITERIA)).record())
    assert not [case for case in results.cases if case in text]


def test_without_a_card_or_norms_the_criteria_on_them_are_not_fulfilled(
    bank: list[ScoredCase],
) -> None:
    model, results = make_site(bank, 0)
    bare = replace(model, card=None, norms={})
    dossier = make_dossier(bare, results, read_criteria(DEFAULT_CRITERIA))
    unmet = {line.measure for line in dossier.accept if not line.is_fulfilled}
    assert {"dice_loss", "shifts", "drift"} == unmet
    assert not dossier.is_accepted
    assert not dossier.stopped_by


def test_refused_cases_count_by_reason_and_against_the_criterion(bank: list[ScoredCase]) -> None:
    model, results = make_site(bank, 0)
    results.refused |= {f"r{place}": "missing_slice" for place in range(8)}
    dossier = make_dossier(model, results, read_criteria(DEFAULT_CRITERIA))
    assert dossier.refused == {"missing_slice": 8}
    assert [line.measure for line in dossier.accept if not line.is_fulfilled][:1] == ["refused"]


def test_mean_of_a_model_of_regions_is_its_worst_structure(bank: list[ScoredCase]) -> None:
    model, results = make_site(bank, 0)
    results.table = results.table.assign(is_region=True)
    criteria = Criteria(accept=(Criterion(measure="dice", at_least=0.5),))
    (line,) = make_dossier(model, results, criteria).accept
    lows = {
        row.label: row.ci_low
        for row in make_dossier(model, results, criteria).scores
        if row.metric == "dice"
    }
    assert set(lows) == {"anterior", "posterior"}
    assert line.value == min(lows.values())
