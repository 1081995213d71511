"""Drift of runs of one study: judged over the newest results, with the error rates of 20 sites.

Images and references are real; results of a site are booked in a real ledger, a run a study.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import LABELS

from segmed.archive import Ledger, Study
from segmed.archive.drift import read_drift
from segmed.archive.drift_windows import STATE_FILE, DriftJudgement, judge_drift, read_alarm
from segmed.archive.study import key_of
from segmed.io import read_image, read_label
from segmed.metrics.measures import FLAGGED, Distributions
from segmed.metrics.training_norms import DISTRIBUTIONS, measure_reference, training_norms

MODEL = "m" * 64
BANK, SEEDS = 120, 20
SOUND_FIRST, LATER = 30, 30
"""Studies of a site before the planted shift, and after it."""

SOON = 16
"""Studies after the shift within which most sites are to name it."""

GAIN = 10.0
"""Factor of all intensities after the shift, as of another scanner."""


@dataclass(frozen=True)
class Measured:
    """A real case: its measures, and those of a brighter image of it."""

    usual: dict[str, Any]
    brighter: dict[str, Any]


@pytest.fixture(scope="module")
def bank(shared_data: Callable[[str], Path]) -> list[Measured]:
    folder = shared_data("hippocampus")
    found = []
    for path in sorted((folder / "labelsTr").glob("hippocampus_*.nii.gz"))[:BANK]:
        image, label = read_image(folder / "imagesTr" / path.name), read_label(path)
        usual, brighter = (
            {**measure_reference(one, label, LABELS), "flags": []} for one in (image, image * GAIN)
        )
        found.append(Measured(usual, brighter))
    return found


def norms_of(cases: Sequence[Measured]) -> Distributions:
    found = training_norms([case.usual for case in cases])[DISTRIBUTIONS]
    found.pop(FLAGGED)
    return dict(found)


def book(ledger: Ledger, measures: Sequence[dict[str, Any]], first: int, model: str = MODEL) -> int:
    """Book results of one run, and end it; returns its number."""
    run = ledger.begin_run(model)
    for number, values in enumerate(measures, first):
        study = Study(f"{number:064x}", "nifti", f"volume{number}.nii.gz", ((Path("x"),),))
        key = key_of(study.content, model)
        ledger.enter(study, key, model, settings="nifti", run=run)
        ledger.start(key, run=run)
        ledger.note_output(
            key, f"{number}.nii.gz", "0", seconds=1.0, measures=values, is_final=True
        )
    ledger.end_run(run)
    return run


def one_by_one(
    folder: Path, norms: Distributions, measures: Sequence[dict[str, Any]]
) -> list[DriftJudgement]:
    """Judgements after each of so many runs of one study."""
    folder.mkdir()
    with Ledger(folder / "ledger.sqlite") as ledger:
        return [
            judge_drift(ledger, book(ledger, [one], number), MODEL, norms, out_dir=folder)
            for number, one in enumerate(measures)
        ]


def site(bank: Sequence[Measured], seed: int) -> tuple[Distributions, list[Measured]]:
    """Norms of half of the bank, and the other half in a random order."""
    order = np.random.default_rng(seed).permutation(len(bank))
    half = len(bank) // 2
    return norms_of([bank[n] for n in order[:half]]), [bank[n] for n in order[half:]]


def test_shift_that_arrives_one_study_at_a_time_is_named_and_goes(
    bank: list[Measured], tmp_path: Path
) -> None:
    norms, new = site(bank, 0)
    shifted = [case.brighter for case in new[:16]]
    back = [case.usual for case in new[16:48]]
    found = one_by_one(tmp_path / "out", norms, [*shifted, *back])
    assert not any(one.is_judged for one in found[:7])
    assert "intensity:0:median" in found[15].alarm.features
    rows = found[15].rows
    assert rows[0].is_alarm
    assert 8 <= rows[0].num_run <= 16
    alarm = next(one.alarm for one in found if one.alarm.features)
    assert alarm.first == 1  # the results that raised it, from the first shifted one on
    assert found[-1].alarm.features == ()
    quiet = [n for n, one in enumerate(found) if n > 16 and not one.alarm.features]
    assert quiet[0] - 15 >= 8, "fewer than 8 sound studies cannot end an alarm"


@pytest.mark.slow
def test_error_rates_of_runs_of_one_study(
    bank: list[Measured], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Sound sites: no alarm in 60 judgements; shifted ones: it is named within 16 studies."""
    false, named, delays = 0, 0, []
    for seed in range(SEEDS):
        norms, new = site(bank, seed)
        sound = [case.usual for case in new]
        quiet = one_by_one(tmp_path / f"sound{seed}", norms, sound)
        false += any(one.alarm.features for one in quiet)
        shifted = sound[:SOUND_FIRST] + [case.brighter for case in new[SOUND_FIRST:]]
        found = one_by_one(tmp_path / f"shifted{seed}", norms, shifted)
        later = [one.alarm.features for one in found[SOUND_FIRST:]]
        delay = next((n + 1 for n, names in enumerate(later) if names), LATER + 1)
        delays.append(delay)
        named += delay <= SOON and later[delay - 1][0].startswith("intensity:0")
    record_property("sound sites with an alarm", false)
    record_property("shifts named", named)
    record_property("studies until then", f"{np.median(delays):g} (most {max(delays)})")
    assert false <= 1
    assert named >= SEEDS - 4, delays
    assert sum(delay <= LATER for delay in delays) >= SEEDS - 2, delays


def test_alarm_outlasts_runs_that_cannot_judge_it(bank: list[Measured], tmp_path: Path) -> None:
    norms, new = site(bank, 1)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run = book(ledger, [case.brighter for case in new[:12]], 0)
        first = judge_drift(ledger, run, MODEL, norms, out_dir=tmp_path)
        assert first.alarm.features
        again = judge_drift(ledger, run, MODEL, norms, out_dir=tmp_path)
        assert again.alarm == first.alarm, "judged again by a page that is written anew"
        run = book(ledger, [case.usual for case in new[12:15]], 100)
        held = judge_drift(ledger, run, MODEL, norms, out_dir=tmp_path)
        assert held.alarm.features == first.alarm.features
        assert [row.is_alarm for row in read_drift(tmp_path)][:1] == [True]
        run = book(ledger, [case.usual for case in new[15:27]], 200)
        assert judge_drift(ledger, run, MODEL, norms, out_dir=tmp_path).alarm.features == ()
        assert not any(row.is_alarm for row in read_drift(tmp_path))


def test_results_of_other_models_are_not_judged(bank: list[Measured], tmp_path: Path) -> None:
    norms, new = site(bank, 2)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        book(ledger, [case.brighter for case in new[:12]], 0, model="o" * 64)
        run = book(ledger, [case.usual for case in new[12:14]], 100)
        found = judge_drift(ledger, run, MODEL, norms, out_dir=tmp_path)
    assert not found.is_judged
    assert {row.num_run for row in found.rows} == {2}


def test_damaged_state_is_no_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("{", "[]", json.dumps({"model": MODEL, "rows": [], "features": [], "odd": 1})):
        (tmp_path / STATE_FILE).write_text(text, encoding="utf-8")
        assert read_alarm(tmp_path, MODEL).features == ()
        assert "is damaged or of another version" in caplog.text
