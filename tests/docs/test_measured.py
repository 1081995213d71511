"""The page of measured figures is what the records say."""

from __future__ import annotations

from tests.benchmarks.measured import PAGE, page


def test_page_is_made_from_todays_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m tests.benchmarks.measured, and commit docs/measured.md"
    )
