"""False alarms of the drift watch: at most 1 % of runs, as `segmed.archive.drift` states."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats
from tiny_model import tiny_package

from segmed.archive.drift import ALPHA, watch
from segmed.archive.model import model_of
from segmed.metrics.measures import FLAGGED, Distributions
from segmed.metrics.training_norms import DISTRIBUTIONS, RESULTS
from segmed.package.predicted_quality import with_quality
from segmed.quality.cases import read_quality_cases
from segmed.quality.fitting import QualityCase

SEEDS = 20
RUNS = 600
FLAG_SHARE = 0.35
"""Share of a model's results that have a flag; of its references next to none have."""

RECORDED = Path(__file__).resolve().parents[1] / "quality" / "hippocampus_cases.json"


def made(rng: np.random.Generator, number: int, *, flagged: float = FLAG_SHARE) -> Distributions:
    """Features of exchangeable studies: skewed, in few values, constant, and flags."""
    return {
        "volume_ml:a": rng.lognormal(1.0, 0.4, number).tolist(),
        "volume_ml:b": np.round(rng.normal(5.0, 1.0, number)).tolist(),
        "intensity:0:median": rng.normal(100.0, 20.0, number).tolist(),
        "spacing_mm:0": [1.0] * number,
        FLAGGED: (rng.random(number) < flagged).astype(float).tolist(),
    }


def alarms(norms: Distributions, current: Distributions) -> set[str]:
    number = len(current[next(iter(current))])
    return {row.feature for row in watch(norms, current, refused=(0, number)) if row.is_alarm}


def test_runs_of_exchangeable_studies_raise_no_more_alarms_than_stated() -> None:
    rng, raised = np.random.default_rng(0), 0
    for _ in range(RUNS):
        known, new = int(rng.integers(20, 120)), int(rng.integers(8, 60))
        raised += bool(alarms(made(rng, known), made(rng, new)))
    assert stats.binomtest(raised, RUNS, ALPHA, alternative="greater").pvalue > 0.01


def test_flags_of_references_would_raise_false_alarms_and_are_not_compared() -> None:
    """The fault that was: references have few flags, results have more."""
    by_references = by_results = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        references = made(rng, 60, flagged=0.02)
        current = made(rng, 40)
        by_references += FLAGGED in alarms(references, current)
        package = replace(tiny_package(), provenance={DISTRIBUTIONS: references})
        assert FLAGGED not in model_of([package]).norms
        held_out = {FLAGGED: made(rng, 60)[FLAGGED]}
        package = replace(package, provenance={DISTRIBUTIONS: references, RESULTS: held_out})
        norms = model_of([package]).norms
        assert norms["volume_ml:a"] == references["volume_ml:a"]
        by_results += FLAGGED in alarms(norms, current)
    assert by_references > SEEDS // 2
    assert by_results == 0


def test_more_flags_than_in_held_out_results_are_an_alarm() -> None:
    found = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        found += FLAGGED in alarms(made(rng, 80), made(rng, 40, flagged=0.85))
    assert found >= SEEDS - 1


def recorded(folder: Path) -> list[QualityCase]:
    """Out-of-fold cases of hippocampus; a result is flagged where its posterior part is small."""
    path = folder / "cases.json"
    path.write_text(
        json.dumps(json.loads(RECORDED.read_text(encoding="utf-8"))["one_network"]),
        encoding="utf-8",
    )
    cases = list(read_quality_cases(path).values())
    volumes = [case.truth["posterior"].predicted_ml for case in cases]
    small = float(np.quantile(volumes, FLAG_SHARE))
    return [
        replace(case, is_flagged=volume < small)
        for case, volume in zip(cases, volumes, strict=True)
    ]


def test_real_results_are_quiet_beside_those_of_other_patients(tmp_path: Path) -> None:
    cases, raised = recorded(tmp_path), []
    assert 5 < sum(bool(case.is_flagged) for case in cases) < 100
    for seed in range(SEEDS):
        order = np.random.default_rng(seed).permutation(len(cases))
        known = {str(place): cases[place] for place in order[:110]}
        bare = replace(tiny_package(), provenance={DISTRIBUTIONS: {"volume_ml:anterior": [99.0]}})
        package = with_quality(bare, known, basis="held_out")
        new = with_quality(bare, {str(p): cases[p] for p in order[110:]}, basis="held_out")
        norms = model_of([package]).norms
        norms.pop("predicted_quality")
        assert norms.keys() == {"volume_ml:anterior", "volume_ml:posterior", FLAGGED}
        raised.append(alarms(norms, new.provenance[RESULTS]))
    assert sum(map(bool, raised)) <= 1  # 20 runs, of which 1 % may
