"""Scores of label maps in a folder, with tables and a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.comparing.case_pictures import images_of, lowest_overlays
from pipelines.comparing.label_names import labels_of, manifest_of
from segmed.archive.index import ensure_index
from segmed.evaluation import compare_folders
from segmed.io.stack import states_spacing
from segmed.metrics import summarise, write_table
from segmed.metrics.label_pairs import label_files, passed_over, stray_lines
from segmed.pictures.legend import Legend
from segmed.report import ReportContent, write_report
from segmed.structures import LabelClass

OnCase = Callable[[int, int], None]


@dataclass(frozen=True)
class LabelScoring:
    """Request to score label maps against references of the same name.

    Attributes:
        predictions: Folder of label maps, or output folder of an archive run.
        references: Folder of reference label maps.
        out_dir: Folder of tables and report.
        labels: JSON of names and values; values found in the references if not given.
        tolerance_mm: Tolerance of NSD, in mm.
        images: Folder of the images; the report shows the worst cases.
    """

    predictions: Path
    references: Path
    out_dir: Path
    labels: Path | None = None
    tolerance_mm: float = 1.0
    images: Path | None = None


def score_label_maps(scoring: LabelScoring, on_case: OnCase | None = None) -> dict[str, Any]:
    """Score all pairs; write `scores.csv`, `summary.csv` and `report.html`.

    Args:
        scoring: What to score.
        on_case: Called with cases scored and cases in all.

    Returns:
        `summary`, `strays` (label maps or references without a partner) and `remarks`.
    """
    ensure_index(scoring.predictions)
    named, manifest = labels_of(scoring.labels, scoring.references), manifest_of(scoring.labels)
    names = sorted(label_files(scoring.references))
    images = images_of(scoring.images, names) if scoring.images else {}
    scored = compare_folders(
        scoring.predictions,
        scoring.references,
        labels=named,
        manifest=manifest,
        tolerance_mm=scoring.tolerance_mm,
        progress=on_case,
    )
    remarks = [*stray_lines(scored.strays), *_passed_over(scoring.references)]
    summary = summarise(scored.table)
    scoring.out_dir.mkdir(parents=True, exist_ok=True)
    write_table(scored.table, scoring.out_dir / "scores.csv")
    write_table(summary, scoring.out_dir / "summary.csv")
    overlays = lowest_overlays(
        scored.table,
        images=images,
        predictions=scoring.predictions,
        references=scoring.references,
        labels=named,
        manifest=manifest,
    )
    content = ReportContent(
        title="Evaluation",
        warnings=remarks,
        scores={scoring.predictions.name: scored.table},
        overlays=overlays if scoring.images else (),
        legend=_legend(named, scoring.references),
    )
    write_report(scoring.out_dir / "report.html", content)
    return {
        "summary": summary.to_dict("records"),
        "strays": [asdict(stray) for stray in scored.strays],
        "remarks": remarks,
    }


def _passed_over(references: Path) -> list[str]:
    beside = passed_over(references)
    names = ", ".join(path.name for path in beside[:3]) + (", ..." if len(beside) > 3 else "")
    return [f"passed over: {len(beside)} files beside the references ({names})"] if beside else []


def _legend(labels: Sequence[LabelClass], references: Path) -> Legend:
    """Names of the structures, and pixels where the references are raster images."""
    is_in_mm = all(map(states_spacing, label_files(references).values()))
    return Legend({label.value: label.name for label in labels}, "mm" if is_in_mm else "px")
