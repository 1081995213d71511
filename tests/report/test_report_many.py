"""Reports of more than a hundred structures fold them, find them by name, draw each as a line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_report_browser import FLAGS

from segmed.report import ReportContent, write_report
from segmed.report.figures import MOST_PANELS, distributions_svg
from segmed.report.page import MOST_OPEN, render

NUMBER = 148
FIND = """
<script>
const seen = {}, bodies = [...document.getElementById("comparison-table").tBodies];
const shown = () => bodies.map((body) => [...body.rows].filter((row) => !row.hidden).length);
const input = (id, change) => {
  const element = document.getElementById(id);
  change(element);
  element.dispatchEvent(new Event("input"));
};
seen.folded = shown();
input("find-structure", (element) => { element.value = "Part 14"; });
seen.found = shown();
seen.count = document.getElementById("structures-count").textContent;
input("find-structure", (element) => { element.value = ""; });
input("all-structures", (element) => { element.checked = true; });
seen.all = shown();
document.body.dataset.seen = JSON.stringify(seen);
</script></body>
"""


@pytest.fixture
def content(scores: dict[str, pd.DataFrame]) -> ReportContent:
    """The scores of two models on one structure, repeated for each of many with other values."""
    tables = {}
    for model, table in scores.items():
        one = table[table["label"] == table["label"].iloc[0]]
        tables[model] = pd.concat(
            one.assign(label=f"part {number}", dice=one["dice"] * (1 - number / 300))
            for number in range(NUMBER)
        ).reset_index(drop=True)
    return ReportContent(title="Many", scores=tables)


def test_many_structures_are_folded_and_few_are_not(
    content: ReportContent, scores: dict[str, pd.DataFrame]
) -> None:
    page = render(content)
    assert 'id="find-structure"' in page
    assert f"<summary>Dice of {NUMBER} structures</summary>" in page
    assert page.count('class="label">part ') == 2 * NUMBER  # all, also without scripts
    assert 'id="find-structure"' not in render(ReportContent(title="Few", scores=scores))


def test_each_of_many_structures_is_a_line_of_one_panel(content: ReportContent) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where panels leave no room for axes
        svg = distributions_svg(content.scores, "dice", "Dice")
    names = re.findall(r">(part \d+)</text>", svg)
    assert sorted(names, key=lambda name: int(name.split()[1])) == [
        f"part {number}" for number in range(NUMBER)
    ]
    medians = content.scores["unet"].groupby("label")["dice"].median()
    drawn = medians[names].to_numpy()
    assert (np.diff(drawn) >= 0).all()
    few = {
        model: table[table["label"].isin([f"part {n}" for n in range(MOST_PANELS)])]
        for model, table in content.scores.items()
    }
    assert distributions_svg(few, "dice", "Dice").count(">part ") == MOST_PANELS


@pytest.mark.integration
def test_structures_are_found_by_name_in_a_browser(tmp_path: Path, content: ReportContent) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    path = write_report(tmp_path / "report.html", content)
    path.write_text(FIND.join(path.read_text("utf-8").rsplit("</body>", 1)), encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [browser, *FLAGS, profile, "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=360, check=True, encoding="utf-8"
    )
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert seen["folded"] == [1 + MOST_OPEN] * 2
    assert seen["found"] == [1 + 9] * 2  # 14, and 140 to 147
    assert seen["count"] == "9 shown"
    assert seen["all"] == [1 + NUMBER] * 2
