"""Files of a dossier: page and record to pass on, and a private folder for what names cases.

```
dossier.html            names no case, but shows pictures
dossier.json            names no case
private/                readable to its owner alone
  cases.csv             which number is which case
  segmentations/        the label maps, named after the cases
```
"""

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
PRIVATE_FOLDER = "private"
"""Folder of the files that name cases; readable to its owner alone."""

CASES_FILE = "cases.csv"
"""Number of each case."""

SEGMENTATIONS = "segmentations"
"""Folder of the label maps, in the private one."""

FILE_COLUMN = "segmentation"
"""Column of `CASES_FILE`: file of the label map."""

OWNER_ALONE = 0o700


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


def private_folder(folder: Path) -> Path:
    """Make the private folder of a dossier, which its owner alone may open."""
    private = folder / PRIVATE_FOLDER
    private.mkdir(parents=True, exist_ok=True, mode=OWNER_ALONE)
    private.chmod(OWNER_ALONE)  # also where an earlier run or a copy left another mode
    return private


def write_cases(folder: Path, results: LocalResults) -> Path:
    """Write which number is which case, and why others were refused, for the owner alone.

    Label maps of an earlier dossier in this folder that are not of this one are removed: only
    files that its list names.
    """
    private = private_folder(folder)
    path, maps = private / CASES_FILE, private / SEGMENTATIONS
    earlier = _listed(path)
    with (
        whole_file(path, private=True) as draft,
        draft.open("w", newline="", encoding="utf-8") as stream,
    ):
        table = csv.writer(stream)
        table.writerow(("number", "case", "patient", "refused", FILE_COLUMN, *KINDS))
        for number, case in enumerate(results.cases, start=1):
            values = results.values.get(case, {})
            file = results.predictions[case].name if case in results.predictions else ""
            row = (f"case {number}", case, results.patients[case], "", file)
            table.writerow((*row, *(values.get(kind, "") for kind in KINDS)))
        for case, reason in results.refused.items():
            table.writerow(("", case, results.patients[case], reason, "", *("" for _ in KINDS)))
    for name in earlier - {file.name for file in results.predictions.values()}:
        (maps / name).unlink(missing_ok=True)
    return path


def _listed(path: Path) -> set[str]:
    """Names of the label maps that an earlier list names."""
    if not path.is_file():
        return set()
    with path.open(newline="", encoding="utf-8") as stream:
        names = [row.get(FILE_COLUMN) or "" for row in csv.DictReader(stream)]
    return {name for name in names if name and Path(name).name == name}
