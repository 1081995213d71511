"""The page of one archive run: failures, and the results to review first."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import segmed
from segmed.io.atomic import whole_file
from segmed.io.colours import structure_colour
from segmed.report.templates import asset, page_templates


@dataclass(frozen=True)
class ShownStudy:
    """A segmented study.

    Attributes:
        study: Its name, without patient identifiers.
        output: File name of the segmentation, or where to find it.
        flags: Quality flags in words; empty where nothing is odd.
        volumes_ml: Volume of each structure, in ml.
        seconds: Time that it took, in s.
        picture: `data:` address of its picture; empty without one.
        link: The segmentation relative to the output folder; empty where its name may be personal.
        quality: Lowest predicted Dice of its structures, with the interval, in words.
    """

    study: str
    output: str
    flags: str
    volumes_ml: Mapping[str, float]
    seconds: float
    picture: str = ""
    link: str = ""
    quality: str = ""


@dataclass(frozen=True)
class FailedStudy:
    """A study that was refused, or that failed.

    Attributes:
        study: Its name, without patient identifiers.
        status: `refused` or `failed`.
        reason: Stable code.
        message: One line.
    """

    study: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class Remark:
    """Note about an unusual input of a segmented study.

    Attributes:
        study: Its name, without patient identifiers.
        text: Remarks, separated by semicolons.
    """

    study: str
    text: str


@dataclass(frozen=True)
class ArchivePage:
    """Everything on the page of an archive run.

    Attributes:
        run: Number of the run.
        model: Name of the model.
        started: When the run began.
        counts: Studies of this run by `done`, `flagged`, `remarked`, `refused`, `failed` and
            `pending`.
        settled: Studies that earlier runs had settled.
        reasons: Bad ends of this run by reason, the most frequent first.
        failures: Some or all of them.
        remarks: Remarks on the input of segmented studies, some or all of them.
        studies: Segmented studies, the worst first, some or all of them.
        structures: Names of the structures, in order.
        has_volumes: True if the model segments volumes, whose sides are known.
        warnings: Sentences for the very top, such as drift alarms.
        provenance: Hashes and the like, by label.
        promise: Promise about the results that nobody reviews, or why there is none.
        to_review: Results of a predicted quality below its threshold; None if none is predicted.
    """

    run: int
    model: str
    started: datetime.datetime
    counts: Mapping[str, int]
    settled: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[FailedStudy] = ()
    remarks: Sequence[Remark] = ()
    studies: Sequence[ShownStudy] = ()
    structures: Sequence[str] = ()
    has_volumes: bool = True
    warnings: Sequence[str] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    promise: str = ""
    to_review: int | None = None


def write_archive_page(path: Path, content: ArchivePage, *, root: str = "") -> Path:
    """Write the page as one self-contained HTML file, whole or not at all.

    Args:
        path: The file; its folder is made.
        content: What to show.
        root: The output folder relative to that of the page, such as `../`.

    Returns:
        The file.
    """
    template = page_templates().get_template("archive.html.j2")
    page = template.render(
        content=content,
        root=root,
        pictured=[study for study in content.studies if study.picture],
        colours=[
            (name, "#{:02x}{:02x}{:02x}".format(*structure_colour(place)))
            for place, name in enumerate(content.structures)
        ],
        style=asset("report.css"),
        script=asset("archive.js"),
        started=content.started.astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=segmed.__version__,
    )
    with whole_file(path) as draft:
        draft.write_text(page, encoding="utf-8")
    return path
