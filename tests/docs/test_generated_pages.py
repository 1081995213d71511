"""Pages that programs write are what these would write today."""

from __future__ import annotations

import sys

import pytest
from documentation import REPOSITORY

sys.path.append(str(REPOSITORY / "docs"))

from make_api import api
from make_reference import reference


@pytest.mark.parametrize(("name", "page"), [("reference.md", reference), ("api.md", api)])
def test_page_is_made_from_todays_code(name: str, page: object) -> None:
    assert callable(page)
    assert (REPOSITORY / "docs" / name).read_text(encoding="utf-8") == page(), (
        "run `python docs/make_reference.py` and commit the result"
    )


def test_every_exported_name_is_on_the_page_with_its_docstring() -> None:
    text = api()
    for name in ("io.read_image", "inference.Predictor", "metrics.METRICS", "plan.Plan"):
        _, _, section = text.partition(f"\n### segmed.{name}\n")
        assert len(section.partition("\n### ")[0].strip()) > 40, name
