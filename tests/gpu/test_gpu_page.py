"""The page of the checks on a GPU is made from their records."""

from __future__ import annotations

from tests.gpu.page import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
