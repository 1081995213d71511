"""The review page in a real browser: it pages, draws, saves exactly what was drawn, and judges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Chromium, Page
from on_page import STATE, drawn, stroke

from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.judgement import judge_study

pytestmark = pytest.mark.integration


@pytest.fixture
def page(browser: Chromium, address: str) -> Iterator[Page]:
    """The page with its first study open."""
    with browser.page() as found:
        found.resize(1400, 850)
        found.go(address)
        yield found


def clear(page: Page, cursor: list[int]) -> None:
    """Empty the label map that is drawn, and go to a voxel."""
    page.run(f"({STATE}.drawing.values.fill(0), {STATE}.scene.cursor = {cursor}, 1)")


def set_size(page: Page, size: int) -> None:
    """Choose the size of the pen."""
    page.run(
        f"(() => {{ const s = document.getElementById('size'); s.value = {size}; "
        "s.dispatchEvent(new Event('input')); return 1; })()"
    )


def test_saved_label_map_has_exactly_the_voxels_of_the_stroke(page: Page, out: Path) -> None:
    archive = ReviewArchive(out)
    key = page.run("document.body.dataset.open")
    study = archive.study(key)
    shape = archive.result(study).shape
    clear(page, [10, 20, 15])
    set_size(page, 1)
    page.press("b")
    page.press("2")
    stroke(page, "axial", [[8, 20, 15], [14, 20, 15]])
    expected = {(x, 20, 15, 2) for x in range(8, 15)}
    assert drawn(page) == expected
    page.press("1")
    stroke(page, "sagittal", [[10, 25, 12], [10, 25, 16]])
    expected |= {(10, 25, z, 1) for z in range(12, 17)}
    page.press("s")
    number = page.wait_for("document.body.dataset.saved")
    (correction,) = archive.store.corrections(key)
    assert (str(correction.id), correction.author) == (number, "Ada")
    saved = archive.corrected(study, correction)
    assert saved.shape == shape
    assert {(*map(int, i), int(saved[tuple(i)])) for i in np.argwhere(saved)} == expected
    page.press("a")
    page.wait_for("document.body.dataset.judged")
    judged = judge_study(archive.store.opinions(key))
    assert (judged.state, judged.correction) == ("accepted", correction.id)
    assert page.faults() == []


def test_pages_through_the_studies_and_rejects_with_a_comment(page: Page, out: Path) -> None:
    archive = ReviewArchive(out)
    keys = [study.entry.key for study in archive.studies()]
    assert page.run("document.body.dataset.open") == keys[0]
    page.press("n")
    page.wait_for(f"document.body.dataset.open === '{keys[1]}'")
    page.press("p")
    page.wait_for(f"document.body.dataset.open === '{keys[0]}'")
    page.wait_for(f"{STATE}.isMine")
    page.run("(document.getElementById('comment').value = 'tail is missing', 1)")
    page.press("r")
    page.wait_for(f"document.body.dataset.open === '{keys[1]}'")
    (opinion,) = archive.store.opinions()
    assert (opinion.key, opinion.verdict, opinion.comment, opinion.author) == (
        keys[0], "rejected", "tail is missing", "Ada"
    )  # fmt: skip
    assert page.run("document.getElementById('progress').textContent") == "1 of 3 judged"
    choice = "document.getElementById('by-state')"
    page.run(f"({choice}.value = 'rejected', {choice}.dispatchEvent(new Event('input')))")
    assert page.run(
        "[...document.querySelectorAll('#studies li')].map((li) => li.dataset.key)"
    ) == [keys[0]]


def test_pen_eraser_fill_undo_and_interpolation_change_only_what_they_should(page: Page) -> None:
    clear(page, [10, 20, 15])
    set_size(page, 1)
    page.press("b")
    page.press("1")
    corners = [[8, 20, 15], [12, 20, 15], [12, 24, 15], [8, 24, 15], [8, 20, 15]]
    stroke(page, "axial", corners)
    square = {(x, y, 15, 1) for x in range(8, 13) for y in range(20, 25)}
    ring = {one for one in square if one[0] in {8, 12} or one[1] in {20, 24}}
    assert drawn(page) == ring
    page.press("f")
    stroke(page, "axial", [[10, 22, 15]])
    assert drawn(page) == square
    page.press("b")
    page.press("2")
    stroke(page, "axial", [[7, 22, 15], [10, 22, 15]])
    assert drawn(page) == square | {(7, 22, 15, 2)}  # over other structures only with Alt
    page.press("x")
    stroke(page, "axial", [[7, 22, 15], [8, 22, 15]])
    assert drawn(page) == square  # the eraser takes the chosen structure alone
    for _ in range(3):
        page.press("z")
    assert drawn(page) == ring
    page.press("y")
    assert drawn(page) == square
    page.press("1")
    page.press("b")
    for _ in range(4):
        page.press("ArrowUp")
    z = page.run(f"{STATE}.scene.cursor[2]")
    assert abs(z - 15) == 4
    stroke(page, "axial", [[8, 20, z], [12, 20, z]])
    page.press("f")
    page.press("z")
    assert drawn(page) == square
    page.press("b")
    for y in range(20, 25):
        stroke(page, "axial", [[8, y, z], [12, y, z]])
    page.run(f"({STATE}.scene.cursor[2] = {(z + 15) // 2}, 1)")
    page.press("i")
    low, high = sorted((z, 15))
    block = {
        (x, y, level, 1)
        for x in range(8, 13) for y in range(20, 25) for level in range(low, high + 1)
    }  # fmt: skip
    assert drawn(page) == block
    page.press("z")
    assert {level for _, _, level, _ in drawn(page)} == {z, 15}


def test_second_browser_sees_who_has_the_study_and_cannot_write(
    browser: Chromium, page: Page, address: str, out: Path
) -> None:
    key = page.run("document.body.dataset.open")
    with browser.page() as second:
        second.resize(1400, 850)
        second.go(address)
        assert second.run("document.body.dataset.open") == key
        assert "Ada has this study open" in second.run(
            "document.getElementById('held').textContent"
        )
        for name in ("save", "accept", "reject"):
            assert second.run(f"document.getElementById('{name}').disabled")
        second.press("b")
        stroke(second, "axial", [[8, 20, 15], [14, 20, 15]])
        assert not second.run(f"{STATE}.drawing.isChanged")
        second.press("s")
        second.press("a")
        second.press("n")
        second.wait_for(f"document.body.dataset.open !== '{key}'")
        second.wait_for(f"{STATE}.isMine")
    archive = ReviewArchive(out)
    assert archive.store.corrections() == archive.store.opinions() == []


def test_overlay_compare_and_3d_work_without_a_network(page: Page, address: str) -> None:
    count = (
        "(() => { const c = review.views.axial.canvas, d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 0; i < d.length; "
        "i += 4) n += Math.abs(d[i] - d[i + 2]) > 30; return n; })()"
    )
    coloured = page.wait_for(f"{count} > 2000 && {count}")
    page.press("o")
    page.wait_for(f"{count} < {coloured // 2}")
    page.press("o")
    page.press("e")
    page.wait_for("document.querySelector('[data-plane=other] canvas').width > 300")
    other = page.run("document.getElementById('other-map').selectedOptions[0].textContent")
    assert other.startswith("earlier: ")
    page.press("e")
    page.press("t")
    page.wait_for("document.getElementById('solid-canvas').dataset.state === 'ready'")
    assert page.faults() == []
    hosts = {one.split("/")[2] for one in page.addresses() if one.startswith("http")}
    assert hosts == {address.split("/")[2]}


@pytest.mark.parametrize(("width", "lines"), [(1400, 1), (1920, 1), (800, 2)])
def test_nothing_runs_off_the_page(page: Page, width: int, lines: int) -> None:
    page.resize(width, 850)
    page.wait_for(f"innerWidth === {width}")
    wide = page.run(
        "[...document.querySelectorAll('main, #bar button, #views, #panel, .verdict button')]"
        ".filter((one) => one.offsetParent).map((one) => [one.id, one.getBoundingClientRect()])"
        ".filter(([, box]) => box.right > innerWidth + 1 || box.bottom > innerHeight + 1)"
        ".map(([id]) => id)"
    )
    assert wide == []
    assert page.run("document.documentElement.scrollWidth") == width
    tops = page.run(
        "new Set([...document.getElementById('bar').children].filter((one) => one.offsetParent)"
        ".map((one) => Math.round((b => b.top + b.height / 2)(one.getBoundingClientRect()))))"
        ".size"
    )
    assert tops == lines
