"""The report: one static HTML page with tables, figures and overlays, and its pictures alone."""

from segmed.report.content import ArchiveItem, Cost, OverlayItem, ReportContent
from segmed.report.figures import curves_png
from segmed.report.overlay import overlay_png
from segmed.report.page import write_report

__all__ = [
    "ArchiveItem",
    "Cost",
    "OverlayItem",
    "ReportContent",
    "curves_png",
    "overlay_png",
    "write_report",
]
