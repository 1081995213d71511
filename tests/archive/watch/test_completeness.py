"""Rules by which a study is complete."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from segmed.archive.watch.arrival import Arrival, Completeness, SeriesSeen

T1, FLAIR = SeriesSeen("MR", "Ax T1 post", "", 20), SeriesSeen("MR", "ax flair", "", 30)


def arrival(*series: SeriesSeen, last: float = 100.0, is_stable: bool = False) -> Arrival:
    return Arrival("ref", "name", series, 90.0, last, is_stable)


def test_study_is_arriving_until_it_was_quiet_for_long_enough() -> None:
    rules = Completeness(quiet_s=10)
    assert rules.judge(arrival(T1), 109.9)[0] == "arriving"
    assert rules.judge(arrival(T1), 110.0) == ("complete", "")


def test_server_that_calls_a_study_stable_is_believed() -> None:
    assert Completeness(quiet_s=10).judge(arrival(T1, is_stable=True), 100.0)[0] == "complete"


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        (Completeness(quiet_s=1, series=("t1", "FLAIR")), "expected series 2 of 2 is missing"),
        (Completeness(quiet_s=1, min_series=2), "1 of at least 2 series"),
        (Completeness(quiet_s=1, min_instances=50), "20 of at least 50 instances"),
    ],
)
def test_study_that_lacks_something_waits_and_is_overdue_at_last(
    rules: Completeness, missing: str
) -> None:
    assert rules.judge(arrival(T1), 200.0) == ("arriving", missing)
    assert rules.judge(arrival(T1), 100.0 + 3600.0)[0] == "overdue"
    assert rules.judge(arrival(T1, FLAIR), 200.0) == ("complete", "")


def test_expression_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="'t1\\(' is not a regular expression"):
        Completeness(series=("t1(",))
