"""The page as a whole: self-contained, honest at the top, safe against its own content."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segmed.errors import GeometryError
from segmed.report import OverlayItem, ReportContent, write_report
from segmed.report.page import FEATURED, render


class Structure(HTMLParser):
    """Collects tags, ids and outside references of a page."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.handle_starttag("img", attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def parsed(page: str) -> Structure:
    structure = Structure()
    structure.feed(page)
    return structure


def test_page_refers_to_nothing_outside_itself(page: str) -> None:
    structure = parsed(page)
    assert structure.references
    assert all(ref.startswith(("#", "data:")) for ref in structure.references)


def test_page_is_well_formed_and_its_ids_are_unique(page: str) -> None:
    structure = parsed(page)
    assert structure.open == []
    assert len(structure.ids) == len(set(structure.ids))
    anchors = {ref[1:] for ref in structure.references if ref.startswith("#") and len(ref) > 1}
    assert anchors <= set(structure.ids)


def test_browser_is_told_to_reach_no_network(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "http" not in policy[1]


def test_a_model_that_misses_structures_is_named_before_anything_else(
    page: str,
) -> None:
    warning = page.index("unet missed 4 of 8 structures entirely (anterior 2, posterior 2)")
    assert "It ranks last on every metric." in page[warning : warning + 400]
    assert warning < page.index('class="cards"') < page.index('id="comparison"')


def test_text_of_a_case_cannot_become_markup(content: ReportContent) -> None:
    evil = "</script><script>alert(1)</script>"
    table = content.scores["unet"].assign(case=evil + content.scores["unet"]["case"])
    page = render(ReportContent(title=evil, subtitle=evil, sentences=[evil], scores={evil: table}))
    assert "<script>alert" not in page


def test_winner_is_marked_once(page: str) -> None:
    assert page.count('class="badge"') == 1
    row = page[: page.index('class="badge"')]
    assert row.rindex("unetpp") > row.rindex("<tbody")


def test_refused_study_stands_with_its_reason(page: str) -> None:
    assert "missing_slice: gap of 2 mm after slice 7" in page


def test_report_of_nothing_but_an_archive_has_no_empty_parts(content: ReportContent) -> None:
    page = render(ReportContent(title="Night run", archive=content.archive))
    assert 'id="archive"' in page
    assert 'id="comparison"' not in page
    assert 'id="cases"' not in page
    assert 'id="curves"' not in page


def test_model_without_any_scored_case_shows_dashes(content: ReportContent) -> None:
    empty = content.scores["unet"].copy()
    empty["both_empty"] = True
    empty["missed"] = False
    floats = empty.select_dtypes("float").columns
    empty[floats] = np.nan
    page = render(ReportContent(title="Empty", scores={"unet": empty}))
    assert "<span>–</span>" in page
    assert not re.search(r"\bnan\b", page, flags=re.IGNORECASE)


def test_viewer_is_embedded_only_where_a_case_asks_for_it(
    content: ReportContent, page: str
) -> None:
    items = [dataclasses.replace(item, viewer=False) for item in content.overlays]
    without = render(ReportContent(title="No viewer", overlays=items))
    assert 'id="niivue-source"' in page
    assert 'id="niivue-source"' not in without
    assert len(without) < 400_000


def test_write_replaces_the_old_report_whole(tmp_path: Path, content: ReportContent) -> None:
    target = tmp_path / "new folder" / "report.html"
    write_report(target, ReportContent(title="first"))
    second = ReportContent(title="second", archive=content.archive)
    assert write_report(target, second) == target
    assert "second" in target.read_text(encoding="utf-8")
    assert list(target.parent.iterdir()) == [target]


def test_failed_write_leaves_the_old_report(tmp_path: Path, image: np.ndarray) -> None:
    target = write_report(tmp_path / "report.html", ReportContent(title="first"))
    bad = OverlayItem(image, None, np.zeros((2, 2, 2), int), (1.0, 1.0, 1.0), "other shape")
    with pytest.raises(GeometryError, match="one shape"):
        write_report(target, ReportContent(title="second", overlays=[bad]))
    assert "first" in target.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [target]


def test_later_overlays_are_thumbnails_and_may_come_from_a_generator(
    content: ReportContent,
) -> None:
    item = next(iter(content.overlays))
    many = (dataclasses.replace(item, viewer=False) for _ in range(FEATURED + 3))
    page = render(ReportContent(title="Many", overlays=many))
    assert page.count("data:image/jpeg") == FEATURED
    assert page.count("data:image/webp") == 3


@pytest.mark.slow
def test_five_hundred_cases_stay_below_fifty_megabytes(
    tmp_path: Path, scores: dict[str, pd.DataFrame]
) -> None:
    rng = np.random.default_rng(0)
    one = scores["unetpp"][scores["unetpp"]["case"] == "case-00"]
    tables = {
        f"model{m}": pd.concat([one.assign(case=f"case-{i:03d}") for i in range(500)])
        for m in range(7)
    }
    label = np.zeros((96, 96, 48), np.uint8)
    label[30:60, 30:60, 15:30] = 1

    def overlays() -> object:
        for i in range(500):
            noise = rng.normal(size=label.shape).astype(np.float32)  # compresses worst of all
            yield OverlayItem(
                noise,
                label,
                np.roll(label, 2, 0),
                (1.0, 1.0, 2.0),
                f"case {i}",
                "RAS",
                f"case-{i:03d}",
                "model0",
                viewer=i < 2,
            )

    path = write_report(
        tmp_path / "report.html",
        ReportContent(title="Large", scores=tables, overlays=overlays()),
    )
    assert path.stat().st_size < 50e6
