"""Files of a dossier: page, record, and the private list of which number is which case."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from segmed.acceptance.dossier import Dossier
from segmed.acceptance.facts import KINDS
from segmed.acceptance.page import dossier_content
from segmed.acceptance.scoring import LocalResults
from segmed.io.atomic import whole_file, write_whole
from segmed.pictures.legend import Legend
from segmed.report import OverlayItem, write_report

PAGE_FILE = "dossier.html"
RECORD_FILE = "dossier.json"
CASES_FILE = "cases.csv"
"""Number of each case; readable to its owner alone."""


def write_dossier(
    folder: Path,
    dossier: Dossier,
    *,
    overlays: Iterable[OverlayItem] = (),
    legend: Legend | None = None,
) -> tuple[Path, Path]:
    """Write page and record, each whole or not at all; neither names a case.

    Args:
        folder: The folder; it is made.
        dossier: The dossier.
        overlays: Pictures of the worst cases.
        legend: Structures of the pictures, and the unit of distances.

    Returns:
        Page and record.
    """
    text = json.dumps(dossier.record(), indent=1, allow_nan=False)
    record = write_whole(folder / RECORD_FILE, text + "\n")
    content = dossier_content(dossier, overlays=overlays, legend=legend)
    return write_report(folder / PAGE_FILE, content), record


def write_cases(folder: Path, results: LocalResults) -> Path:
    """Write which number is which case, and why others were refused, for the owner alone."""
    path = folder / CASES_FILE
    with (
        whole_file(path, private=True) as draft,
        draft.open("w", newline="", encoding="utf-8") as stream,
    ):
        table = csv.writer(stream)
        table.writerow(("number", "case", "patient", "refused", *KINDS))
        for number, case in enumerate(results.cases, start=1):
            values = results.values.get(case, {})
            row = (f"case {number}", case, results.patients[case], "")
            table.writerow((*row, *(values.get(kind, "") for kind in KINDS)))
        for case, reason in results.refused.items():
            table.writerow(("", case, results.patients[case], reason, *("" for _ in KINDS)))
    return path
