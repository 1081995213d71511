"""The report: one static HTML page with tables, figures and overlays, and its pictures alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.pictures.overlay import overlay_picture
    from segmed.report.content import ArchiveItem, Cost, OverlayItem, ReportContent
    from segmed.report.figures import curves_png
    from segmed.report.page import write_report
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.report.content": "ArchiveItem Cost OverlayItem ReportContent",
            "segmed.report.figures": "curves_png",
            "segmed.pictures.overlay": "overlay_picture",
            "segmed.report.page": "write_report",
        },
    )

__all__ = [
    "ArchiveItem",
    "Cost",
    "OverlayItem",
    "ReportContent",
    "curves_png",
    "overlay_picture",
    "write_report",
]
