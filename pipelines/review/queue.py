"""Page of the queue of a watch: studies that arrive, wait, are in work or failed."""

from __future__ import annotations

import time
from dataclasses import asdict
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from segmed.archive.review.archive import ReviewArchive
from segmed.archive.watch.snapshot import STATES_OF_QUEUE, Snapshot, read_snapshot, watch_folder

REFRESH_S = 5
"""Time after which a browser loads the page again, in s."""

router = APIRouter()

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="{refresh}">
<title>Queue of the watch</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="assets/review.css">
</head>
<body class="queue">
<main>
<h1>Queue of the watch</h1>
<p role="status">{state}</p>
<p>{counts}</p>
<table>
<thead><tr><th>Study</th><th>Rule</th><th>State</th><th>Reason</th><th>Since</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p><a href="./">Results</a></p>
</main>
</body>
</html>
"""


@router.get("/queue")
def queue_page(request: Request) -> HTMLResponse:
    """The queue as a page that loads itself again."""
    return HTMLResponse(page_of(_snapshot(request)))


@router.get("/api/queue")
def queue(request: Request) -> dict[str, Any]:
    """The queue as JSON."""
    found = _snapshot(request)
    return {**asdict(found), "is_alive": found.is_alive}


def page_of(found: Snapshot) -> str:
    """HTML of a queue.

    Args:
        found: The queue; names of its studies are hashes.
    """
    rows = [
        f"<tr><td>{escape(one.study)}</td><td>{escape(one.route)}</td><td>{escape(one.state)}</td>"
        f"<td>{escape(one.why)}</td><td>{_ago(one.since)}</td></tr>"
        for one in found.studies
    ]
    counts = ", ".join(f"{found.count(state)} {state}" for state in STATES_OF_QUEUE)
    if found.latencies_s:
        median, late = found.latencies_s
        counts += f"; from last slice to result {median:.0f} s, 95 % within {late:.0f} s"
        parts = ", ".join(f"{name} {s[0]:.1f} s" for name, s in found.parts_s.items() if s[0] > 0)
        counts += f" (medians: {parts})" if parts else ""
    return PAGE.format(
        refresh=REFRESH_S,
        state=escape(state_of(found)),
        counts=escape(counts),
        rows="\n".join(rows) or "<tr><td colspan=5>No study waits.</td></tr>",
    )


def state_of(found: Snapshot) -> str:
    """The watch itself in a sentence."""
    if not found.is_running:
        return "The watch was stopped."
    if not found.is_alive:
        return (
            f"The watch has not answered for {_ago(found.written)}: it waits for the GPU, or its "
            "process died; then start it again."
        )
    if found.server:
        return f"The watch is at work, but the server is not: {found.server}"
    return "The watch is at work."


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def has_queue(archive: ReviewArchive) -> bool:
    """Return whether an archive is filled by a watch."""
    return watch_folder(archive.out_dir) is not None


def _snapshot(request: Request) -> Snapshot:
    folder = watch_folder(request.app.state.archive.out_dir)
    found = None if folder is None else read_snapshot(folder)
    if found is None:
        raise HTTPException(404, "this folder is not of a watch: start `segmed watch` with it")
    return found
