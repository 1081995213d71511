"""Content of a report: plain records, filled by the caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import pandas as pd

from segmed.one_line import OneLine
from segmed.outcomes import Status
from segmed.pictures.legend import Legend

UNKNOWN = "–"
"""Cell of a value that is not known."""

Array = npt.NDArray[Any]
History = Sequence[Mapping[str, Any]]
"""One run's epochs: keys `epoch train_loss val_loss val_dice learning_rate seconds`."""


@dataclass(frozen=True)
class Cost:
    """Cost of one architecture.

    Attributes:
        parameters: Trainable parameters.
        train_seconds: Wall time of its training, all folds together.
        seconds_per_case: Mean wall time of one segmentation.
        peak_memory_mb: Peak memory while it trained, in MiB.
    """

    parameters: int | None = None
    train_seconds: float | None = None
    seconds_per_case: float | None = None
    peak_memory_mb: float | None = None


@dataclass(frozen=True, repr=False)
class OverlayItem(OneLine):
    """One case to look at.

    Attributes:
        image: One channel, `[*spatial]`, or `[C, *spatial]`: three channels of a 2D image are
            shown in colour, others are averaged.
        reference: Label map `[*spatial]` on the image's grid, 0 is background; None without one.
        prediction: Label map `[*spatial]` on the image's grid.
        spacing_mm: Voxel edge along each spatial axis, in mm, in array order.
        caption: Case, model and scores, in words.
        orientation: Axis codes of a volume such as `RAS` (`Grid.orientation`); empty when unknown:
            planes are then shown as stored, without letters.
        case: Case id, which links the picture to the rows of the case table.
        model: Name of the model that predicted.
        viewer: Offer the case in the 3D and slice viewer.
        legend: Names and colours of the structures, and the unit of the grid.
    """

    image: Array
    reference: Array | None
    prediction: Array
    spacing_mm: Sequence[float]
    caption: str
    orientation: str = ""
    case: str = ""
    model: str = ""
    viewer: bool = False
    legend: Legend = field(default_factory=Legend)


@dataclass(frozen=True)
class ArchiveItem:
    """Outcome of one study of an archive.

    Attributes:
        study: Name of the study as the archive run shows it, without patient identifiers.
        status: `done`, `refused` or `failed`.
        reason: Why it was refused or failed; empty when done.
        output: File name of the segmentation; empty when there is none.
        seconds: Wall time spent on it.
    """

    study: str
    status: Status
    reason: str = ""
    output: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class ReportTable:
    """A table of findings beside the comparison.

    Attributes:
        title: Heading.
        note: Paragraph above the table.
        columns: Names of the columns; the first one's cells are headings of their rows.
        rows: Cells of each row, as shown.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ReportChart:
    """A figure of findings beside the comparison.

    Attributes:
        title: Heading.
        note: Paragraph above the figure.
        svgs: SVG elements, side by side.
    """

    title: str
    note: str
    svgs: Sequence[str]


@dataclass(frozen=True, repr=False)
class ReportContent(OneLine):
    """Everything on the page, top to bottom; parts that are empty are left out.

    Attributes:
        title: Heading of the page.
        subtitle: What was compared, on which cases and folds, within which budget.
        warnings: Sentences for the very top, beside those that the scores themselves call for.
        sentences: Findings in words, such as those of `segmed.metrics.compare_models`.
        cards: Label and value of further figures at the top.
        leading: Tables above the comparison.
        tables: Further tables, below it.
        charts: Further figures, below the tables.
        scores: Per-case table of each model, as `segmed.metrics.scores_table` gives it.
        costs: Cost of each model, by the names of `scores`.
        winner: Name of the model to mark; None marks none.
        curves: Epochs of each training run; a run is named `model` or `model/anything`.
        overlays: Cases to look at, the most telling first; may be a generator.
        archive: How each study of an archive ended.
        next_command: Command that a reader runs next, at the end of the page.
        provenance: Versions, data hash, plan hash, commit and the like, by label.
        legend: Structures of all overlays, and the unit of all distances.
    """

    title: str
    subtitle: str = ""
    warnings: Sequence[str] = ()
    sentences: Sequence[str] = ()
    cards: Sequence[tuple[str, str]] = ()
    leading: Sequence[ReportTable] = ()
    tables: Sequence[ReportTable] = ()
    charts: Sequence[ReportChart] = ()
    scores: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    winner: str | None = None
    curves: Mapping[str, History] = field(default_factory=dict)
    overlays: Iterable[OverlayItem] = ()
    archive: Sequence[ArchiveItem] = ()
    next_command: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    legend: Legend = field(default_factory=Legend)
