"""The page in a real browser: its table sorts and filters, its viewer opens, nothing is fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from segmed.report import ReportContent, write_report

pytestmark = pytest.mark.integration

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)

CLICKS = """
<script>
const seen = {errors: []}, rows = () => [...document.querySelectorAll("#case-table tbody tr")];
addEventListener("securitypolicyviolation",
  (e) => seen.errors.push(e.violatedDirective + " " + e.blockedURI));
addEventListener("error", (e) => seen.errors.push(String(e.message)));
const say = () => { document.body.dataset.seen = JSON.stringify(seen); };
const column = (n) => rows().map((row) => row.cells[n].textContent);
const head = (key) => document.querySelector(`#case-table th[data-key=${key}]`);
seen.first = column(3);
head("dice").querySelector("button").click();
seen.best_first = column(3);
seen.sort = head("dice").getAttribute("aria-sort");
const choice = document.getElementById("by-model");
choice.value = "unetpp";
choice.dispatchEvent(new Event("input"));
seen.models = [...new Set(column(1))];
const look = document.querySelector(".look");
look.click();
seen.expanded = look.getAttribute("aria-expanded");
seen.picture = document.querySelector("tr.shown img").src.slice(0, 11);
look.click();
seen.closed = document.querySelectorAll("tr.shown").length;
document.getElementById("find").value = "no such case";
document.getElementById("find").dispatchEvent(new Event("input"));
seen.none = rows().length;
document.querySelector(".zoom").click();
seen.lightbox = document.getElementById("lightbox").open;
document.getElementById("lightbox").close();
say();
document.querySelector(".view3d").click();
const wait = setInterval(() => {
  const viewer = document.getElementById("viewer");
  seen.viewer = viewer.dataset.state || viewer.querySelector("p").textContent;
  say();
  if (viewer.dataset.state) clearInterval(wait);
}, 200);
</script></body>
"""


def test_table_sorts_filters_and_viewer_opens_without_network(
    tmp_path: Path, content: ReportContent
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    path = write_report(tmp_path / "report.html", content)
    page = path.read_text(encoding="utf-8")
    path.write_text(CLICKS.join(page.rsplit("</body>", 1)), encoding="utf-8")
    done = subprocess.run(
        [
            browser,
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=25000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=360,
        check=True,
        encoding="utf-8",
    )
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert seen["errors"] == []
    assert seen["first"] == sorted(seen["first"])
    assert seen["best_first"] == sorted(seen["first"], reverse=True)
    assert seen["sort"] == "descending"
    assert seen["models"] == ["unetpp"]
    assert seen["expanded"] == "true"
    assert seen["picture"] == "data:image/"
    assert seen["closed"] == 0
    assert seen["none"] == 0
    assert seen["lightbox"] is True
    assert seen["viewer"] == "ready"
