"""The demo's archive in a real browser, by clicks and keys alone: two reviewers judge it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Chromium, Page
from on_page import STATE, drawn, place_of, stroke
from tiny_data import hippocampus_package

from pipelines.demo.archive import make_archive
from pipelines.review.records import flag_records
from pipelines.review.server import served
from segmed.archive import FolderSource, segment_archive
from segmed.archive.review.agreement import dice_by_structure
from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.judgement import judge_study
from segmed.inference import Predictor
from segmed.manifest import read_manifest

pytestmark = pytest.mark.integration

CTRL = 2


@pytest.fixture(scope="session")
def demo_archive(tmp_path_factory: pytest.TempPathFactory, sample_manifest_path: Path) -> Path:
    """The demo's archive: three NIfTI files, three DICOM series, and one that is refused."""
    folder = tmp_path_factory.mktemp("demo")
    source = make_archive(read_manifest(sample_manifest_path), folder / "archive_source")
    predictor = Predictor(hippocampus_package(), device="cpu", engine="torch")
    run = segment_archive(FolderSource(source), predictor=predictor, out_dir=folder / "archive")
    assert sorted(outcome.status for outcome in run) == ["done"] * 6 + ["refused"]
    return folder / "archive"


@pytest.fixture
def out(demo_archive: Path, tmp_path: Path) -> Path:
    """A copy of its output folder."""
    return shutil.copytree(demo_archive, tmp_path / "out")


@pytest.fixture
def address(out: Path) -> Iterator[str]:
    """Address of the served page; it suggests no reviewer."""
    with served(out) as place:
        yield place


@pytest.fixture
def page(browser: Chromium, address: str) -> Iterator[Page]:
    """The page as its reviewer finds it."""
    with browser.page() as found:
        opened(found, address)
        yield found


def opened(page: Page, address: str) -> None:
    """Open the page."""
    page.resize(1400, 850)
    page.go(address)


def sign(page: Page, name: str) -> None:
    """Enter the name of the reviewer, and wait for the study."""
    page.click("#author")
    page.type(name)
    page.press("Enter")
    page.press("Escape")
    page.wait_for(f"{STATE}.isMine")


def text_of(page: Page, selector: str) -> str:
    """Text of an element."""
    return str(page.run(f"document.querySelector('{selector}').innerText"))


def listed(page: Page) -> list[str]:
    """Keys of the studies that the list shows."""
    script = "[...document.querySelectorAll('#studies li')].map((li) => li.dataset.key)"
    return [str(key) for key in page.run(script)]


def goes_to(page: Page, key: str) -> None:
    """Wait until a study is open."""
    page.wait_for(f"document.body.dataset.open === '{key}'")


def voxels(values: np.ndarray) -> set[tuple[int, int, int, int]]:
    """Index and value of each voxel that is no background."""
    return {(*map(int, i), int(values[tuple(i)])) for i in np.argwhere(values)}


def test_list_planes_and_filters_of_the_demos_archive(page: Page, out: Path) -> None:
    archive = ReviewArchive(out)
    studies = archive.studies()
    assert listed(page) == [study.entry.key for study in studies]
    assert text_of(page, "#progress") == "0 of 6 judged"
    assert [study.priority for study in studies] == sorted(
        (study.priority for study in studies), reverse=True
    )
    assert "Enter your name" in text_of(page, "#held")
    for flag in flag_records(studies[0].entry):
        assert flag["words"] in text_of(page, "#flags")
        assert flag["meaning"] in text_of(page, "#flags")
    first = archive.image(studies[0]).shape[1:]
    cursor = page.run(f"{STATE}.scene.cursor")
    for name, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
        page.settle()
        place = place_of(page, name, cursor)
        page.drag([place])
        assert page.run(f"{STATE}.focus") == name
        before = page.run(f"{STATE}.scene.cursor[{axis}]")
        page.press("ArrowUp")
        after = page.run(f"{STATE}.scene.cursor[{axis}]")
        assert abs(after - before) == 1
        assert page.run(f"{STATE}.scene.geometry.planes.{name}.depth") == first[axis]
    for study in studies[1:]:
        page.press("n")
        goes_to(page, study.entry.key)
        assert page.run(f"{STATE}.scene.geometry.shape") == list(archive.image(study).shape[1:])
        shown = np.array(page.run(f"[...{STATE}.drawing.values]"))
        expected = archive.result(study).ravel(order="F")
        np.testing.assert_array_equal(shown, expected)
    page.press("n")
    page.wait_for("document.getElementById('message').textContent.includes('last study')")
    flags = flag_records(studies[0].entry)
    page.choose("#by-flag", flags[0]["words"])
    page.wait_for("document.getElementById('by-flag').value")
    assert listed(page) == [
        study.entry.key
        for study in studies
        if flags[0]["code"] in {flag["code"] for flag in flag_records(study.entry)}
    ]
    page.choose("#by-flag", "All flags")
    name = Path(studies[2].entry.output or "").name.split(".")[0]
    page.click("#find")
    page.type(name)
    page.wait_for("document.getElementById('count').textContent === '1 of 6 studies'")
    assert listed(page) == [studies[2].entry.key]
    page.press("Escape")
    page.click("#studies li")
    goes_to(page, studies[2].entry.key)
    assert page.faults() == []


def test_reviewer_draws_by_buttons_saves_and_accepts_what_was_drawn(page: Page, out: Path) -> None:
    archive = ReviewArchive(out)
    study = archive.studies()[0]
    sign(page, "Ada")
    original = (out / (study.entry.output or "")).read_bytes()
    before = voxels(archive.result(study))
    cursor = [int(n) for n in page.run(f"{STATE}.scene.cursor")]
    x, y, z = cursor
    page.press("[")
    page.press("[")
    assert text_of(page, "#size-shown") == "1"
    page.click("#structures li:nth-child(2)")
    page.click("[data-tool=eraser]")
    stroke(page, "axial", [[x - 4, y, z], [x + 4, y, z]])
    line = {(one, y, z) for one in range(x - 4, x + 5)}
    expected = {one for one in before if not (one[:3] in line and one[3] == 2)}
    assert drawn(page) == expected
    page.click("#structures li:nth-child(1)")
    page.click("[data-tool=pen]")
    stroke(page, "axial", [[x - 4, y, z], [x + 4, y, z]])
    taken = {one[:3] for one in expected}
    expected |= {(*place, 1) for place in line - taken}
    assert drawn(page) == expected
    page.click("#undo")
    page.click("#redo")
    assert drawn(page) == expected
    page.wait_for("document.getElementById('changed').textContent.includes('not saved')")
    page.click("#save")
    number = int(page.wait_for("document.body.dataset.saved"))
    name = page.run("document.getElementById('map').selectedOptions[0].text")
    assert name == f"correction {number} by Ada"
    (correction,) = archive.store.corrections(study.entry.key)
    assert (correction.id, correction.author, correction.origin) == (number, "Ada", "page")
    assert voxels(archive.corrected(study, correction)) == expected
    assert (out / (study.entry.output or "")).read_bytes() == original
    page.click("#comment")
    page.type("the head was short")
    page.press("Escape")
    page.click("#accept")
    goes_to(page, archive.studies()[1].entry.key)
    (opinion,) = archive.store.opinions(study.entry.key)
    assert (opinion.verdict, opinion.correction, opinion.comment) == (
        "accepted", number, "the head was short"
    )  # fmt: skip
    page.click("#reject")
    goes_to(page, archive.studies()[2].entry.key)
    page.click("#comment")
    page.type("which scanner?")
    page.press("Enter", modifiers=CTRL)
    page.wait_for("document.body.dataset.judged === ''")
    assert text_of(page, "#progress") == "2 of 6 judged"
    page.press("Escape")
    page.choose("#by-state", "Rejected")
    page.wait_for("document.getElementById('count').textContent === '1 of 6 studies'")
    assert listed(page) == [archive.studies()[1].entry.key]
    assert page.faults() == []


def test_two_reviewers_who_differ_are_both_kept_with_their_dice_until_they_agree(
    browser: Chromium, page: Page, address: str, out: Path
) -> None:
    archive = ReviewArchive(out)
    study, after = archive.studies()[:2]
    x, y, z = (int(n) for n in page.run(f"{STATE}.scene.cursor"))
    sign(page, "Ada")
    with browser.page() as second:
        opened(second, address)
        second.click("#author")
        second.type("Bob")
        second.press("Escape")
        second.wait_for("document.getElementById('held').textContent.includes('Ada has this')")
        for name in ("#save", "#accept", "#reject", "#say", "[data-tool=pen]"):
            assert second.run(f'document.querySelector("{name}").disabled')
        second.press("b")
        stroke(second, "axial", [[x, y, z], [x + 3, y, z]])
        assert not second.run(f"{STATE}.drawing.isChanged")
        drawn_by(page, "Ada", [[x - 5, y - 5, z], [x + 5, y - 5, z]])
        page.click("#accept")
        goes_to(page, after.entry.key)
        opened(second, address)
        assert second.run("document.body.dataset.open") != study.entry.key
        second.click(f"[data-key='{study.entry.key}']")
        goes_to(second, study.entry.key)
        sign_again(second)
        second.choose("#map", "result of")
        second.wait_for(f"{STATE}.map === 'result'")
        drawn_by(second, "Bob", [[x - 5, y + 5, z], [x + 5, y + 5, z]])
        second.click("#accept")
        second.wait_for("document.body.dataset.judged === 'accepted'")
        state = judge_study(archive.store.opinions(study.entry.key))
        assert (state.state, state.authors) == ("disputed", ("Ada", "Bob"))
        second.click(f"[data-key='{study.entry.key}']")
        goes_to(second, study.entry.key)
        second.wait_for("!document.getElementById('agreement').hidden")
        shown = text_of(second, "#agreement")
        ada, bob = archive.store.corrections(study.entry.key)
        labels = archive.structures(study.entry).labels
        dice = dice_by_structure(
            archive.corrected(study, ada), archive.corrected(study, bob), labels
        )
        rows = {row.split("\t")[0]: row for row in shown.splitlines() if " and " in row}
        pair = f"Ada (correction {ada.id}) and Bob (correction {bob.id})"
        assert pair in rows
        for name, value in dice.items():
            if value is not None:
                assert f"{name} {value:.3f}" in shown
        assert text_of(second, "#state") == "disputed"
        second.choose("#map", f"correction {ada.id}")
        second.wait_for(f"{STATE}.map === 'c{ada.id}'")
        second.click("#accept")
        second.wait_for("document.getElementById('progress').textContent.startsWith('1 of 6')")
    judged = judge_study(archive.store.opinions(study.entry.key))
    assert (judged.state, judged.correction) == ("accepted", ada.id)


def drawn_by(page: Page, name: str, voxels: list[list[int]]) -> None:
    """Draw a stroke over everything, and save it."""
    page.click("[data-tool=pen]")
    stroke(page, "axial", voxels, modifiers=1)
    assert page.run(f"{STATE}.drawing.isChanged")
    page.run("(delete document.body.dataset.saved, 1)")
    page.click("#save")
    page.wait_for("document.body.dataset.saved")


def sign_again(page: Page) -> None:
    """Wait for the study; the page remembers its reviewer."""
    page.wait_for(f"{STATE}.isMine")
