"""The report's one page: a static HTML file that needs nothing but a browser."""

from __future__ import annotations

import base64
import datetime
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

import segmed
from segmed.io.atomic import whole_file
from segmed.pictures.overlay import PANEL_HEIGHT
from segmed.report import figures, tables
from segmed.report.case_overlay import draw_overlay
from segmed.report.content import UNKNOWN, OverlayItem, ReportContent, ReportTable
from segmed.report.templates import asset, page_templates
from segmed.report.viewer import ViewerCase, niivue_base64, viewer_case

FEATURED = 12
"""Overlays shown large; those after them are thumbnails beside the case table."""

THUMBNAIL_HEIGHT = 150
"""Height of the planes of a thumbnail, in pixels."""

MAX_VIEWER_BYTES = 40_000_000
"""Volumes for the viewer in one page; cases beyond them have pictures alone."""

MOST_OPEN = 24
"""Structures whose rows, colours and figures are open at once; more are folded and searched."""

STATIC_ROWS = 40
"""Rows of the case table in the page itself, for print and without scripts."""


@dataclass(frozen=True)
class Picture:
    """An encoded overlay with its texts on the page."""

    uri: str
    width: int
    height: int
    caption: str
    case: str
    model: str
    is_featured: bool
    scores: str = ""
    viewer: ViewerCase | None = None
    has_sides: bool = False


def write_report(path: Path | str, content: ReportContent) -> Path:
    """Writes the report as one self-contained HTML file, whole or not at all.

    Args:
        path: File to write; its folder is made.
        content: What to show; empty parts are left out.

    Returns:
        The path written.

    Raises:
        GeometryError: An overlay's arrays do not fit each other.
    """
    target = Path(path)
    page = render(content)
    with whole_file(target) as draft:
        draft.write_text(page, encoding="utf-8")
    return target


def render(content: ReportContent) -> str:
    """The page as text; arguments and errors as in `write_report`."""
    pictures = list(_pictures(content))
    columns, rows = tables.case_rows(content.scores) if content.scores else ([], [])
    blocks = tables.comparison(content.scores, content.costs, content.winner)
    environment = page_templates()
    environment.filters["zip"] = zip
    thumbnails = {f"{p.case}\t{p.model}": i for i, p in enumerate(pictures) if p.case}
    return environment.get_template("report.html.j2").render(
        content=content,
        is_number=_is_number,
        style=asset("report.css"),
        script=asset("report.js"),
        warnings=[*content.warnings, *tables.warnings_from(content.scores, content.warnings)],
        metrics=tables.metrics_in(content.scores, content.legend.unit),
        blocks=blocks,
        best=next((block for block in blocks if block.is_winner), blocks[0] if blocks else None),
        num_cases=len({str(c) for t in content.scores.values() for c in t["case"]}),
        labels=tables.labels_of(content.scores),
        most_open=MOST_OPEN,
        most_panels=figures.MOST_PANELS,
        figures=_figures(content),
        pictures=pictures,
        niivue=niivue_base64() if any(picture.viewer for picture in pictures) else "",
        featured=[picture for picture in pictures if picture.is_featured],
        has_sides=any(picture.has_sides for picture in pictures),
        structures=_structures(content),
        table={"columns": columns, "rows": rows, "pictures": thumbnails},
        static_rows=rows[:STATIC_ROWS],
        outcomes=_outcome_counts(content),
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=segmed.__version__,
    )


def _is_number(table: ReportTable, place: int) -> bool:
    """Return whether a column has numbers, which are aligned at the right."""
    cells = [row[place] for row in table.rows if row[place] not in ("", UNKNOWN)]
    return bool(cells) and all(re.match(r"[<+-]?\d", cell) for cell in cells)


def _outcome_counts(content: ReportContent) -> dict[str, int]:
    states = ("done", "refused", "failed")
    return {state: sum(item.status == state for item in content.archive) for state in states}


def _pictures(content: ReportContent) -> Iterator[Picture]:
    """Encodes overlays one by one, so that a generator of many is never in memory whole."""
    left = MAX_VIEWER_BYTES
    for index, item in enumerate(content.overlays):
        table = content.scores.get(item.model)
        unit = item.legend.unit
        scores = "" if table is None else tables.scores_in_words(table, item.case, unit)
        picture = _picture(item, scores, is_featured=index < FEATURED)
        left -= 0 if picture.viewer is None else picture.viewer.num_bytes
        yield picture if left >= 0 else replace(picture, viewer=None)


def _picture(item: OverlayItem, scores: str, *, is_featured: bool) -> Picture:
    height = PANEL_HEIGHT if is_featured else THUMBNAIL_HEIGHT
    picture = draw_overlay(item, panel_height=height)
    out = io.BytesIO()
    if is_featured:  # full colour resolution: subsampled, the two outlines would blend
        picture.save(out, "JPEG", quality=90, subsampling=0)
    else:
        picture.save(out, "WEBP", quality=60, method=4)
    kind = "jpeg" if is_featured else "webp"
    uri = f"data:image/{kind};base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return Picture(
        uri=uri,
        width=picture.width,
        height=picture.height,
        caption=item.caption,
        case=item.case,
        model=item.model,
        is_featured=is_featured,
        scores=scores,
        viewer=viewer_case(item) if item.viewer and is_featured else None,
        has_sides=bool(item.orientation),
    )


def _structures(content: ReportContent) -> list[tuple[str, str]]:
    """Name and colour of each structure, for the key above the overlays."""
    legend = content.legend
    return [
        (name, "#{:02x}{:02x}{:02x}".format(*legend.colour(value)))
        for value, name in legend.structures.items()
    ]


def _figures(content: ReportContent) -> dict[str, Any]:
    """The SVGs of the page, by name; parts without data are absent."""
    drawn: dict[str, Any] = {}
    if any(content.curves.values()):
        drawn["curves"] = figures.curves_svg(content.curves)
    if not content.scores:
        return drawn
    metrics = tables.metrics_in(content.scores, content.legend.unit)
    shown = [m for m in metrics if m.key in ("dice", "hd95_mm")]
    drawn["distributions"] = [
        (metric.title, figures.distributions_svg(content.scores, metric.key, metric.title))
        for metric in shown
    ]
    dice = tables.mean_dice_by_model(content.scores)
    cost = figures.cost_svg(content.costs, dice)
    if cost:
        drawn["cost"] = cost
    drawn["pairs"] = list(_pairs(content.scores, dice, content.winner))
    return drawn


def _pairs(
    scores: Mapping[str, pd.DataFrame], dice: Mapping[str, float], winner: str | None
) -> Iterator[str]:
    """The winner (or the best) against each other model, case by case."""
    if len(dice) < 2:
        return
    best = winner if winner and winner in dice else max(dice, key=lambda name: dice[name])
    first = tables.per_case_mean(scores[best], "dice").rename(best)
    for name in sorted((n for n in dice if n != best), key=lambda name: -dice[name]):
        other = tables.per_case_mean(scores[name], "dice").rename(name)
        if not first.index.intersection(other.index).empty:
            yield figures.paired_svg(first, other, "mean Dice of each case")
