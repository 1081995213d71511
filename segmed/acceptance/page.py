"""Dossier as one HTML page: verdict, scores, groups, drift, refusals, cost and worst cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from segmed.acceptance.calibration import CalibrationRow
from segmed.acceptance.criteria import CriterionLine
from segmed.acceptance.criteria import in_words as measure_in_words
from segmed.acceptance.dossier import AssessedModel, Dossier
from segmed.acceptance.groups import FEWEST_CASES
from segmed.acceptance.groups import MARGIN as GROUP_MARGIN
from segmed.acceptance.scoring import LocalResults
from segmed.acceptance.shift import MARGIN, MARGIN_MM, ScoreRow
from segmed.archive.drift import MIN_STUDIES, DriftRow, num_judged
from segmed.archive.drift import in_words as feature_in_words
from segmed.manifest.schema import Manifest
from segmed.metrics.score import METRICS
from segmed.pictures.legend import Legend
from segmed.report import OverlayItem, ReportContent
from segmed.report.case_overlay import overlay_of_case
from segmed.report.content import UNKNOWN, ReportChart, ReportTable

SHOWN_METRICS = ("dice", "hd95_mm", "nsd")
"""Metrics of the table beside the card; `dossier.json` has all."""

WORST = 6
"""Cases of the failures gallery."""

SHOWN_DRIFT = 12


def dossier_content(
    dossier: Dossier, *, overlays: Iterable[OverlayItem] = (), legend: Legend | None = None
) -> ReportContent:
    """Collect the content of the page; cases are numbered, never named.

    Args:
        dossier: The dossier.
        overlays: Pictures of the worst cases, from `worst_cases`.
        legend: Structures of the pictures, and the unit of distances.
    """
    model = dossier.model
    named = title_of(model)
    state = "accepted" if dossier.is_accepted else "not accepted"
    period = f", {dossier.months}" if dossier.months else ""
    refused = sum(dossier.refused.values())
    return ReportContent(
        title=f"Acceptance of {named}: {state}{period}",
        subtitle=f"{dossier.cases} local cases of {dossier.patients} patients are scored; "
        f"{refused} more were refused or failed and have no score.",
        warnings=[*dossier.reasons, *dossier.findings, *_copies(dossier)],
        sentences=[dossier.bound.sentence, *dossier.unjudged, *_judged(dossier)],
        cards=[("Refused", f"{refused} of {refused + dossier.cases}"), ("Verdict", state)],
        leading=list(_verdict(dossier)),
        tables=list(_tables(dossier, (legend or Legend()).unit)),
        charts=_charts(dossier),
        scores={named: dossier.table},
        overlays=overlays,
        provenance={"model hash": model.hash, "judged": dossier.created},
        legend=legend or Legend(),
    )


def worst_cases(
    dossier: Dossier, results: LocalResults, manifest: Manifest, *, most: int = WORST
) -> Iterator[OverlayItem]:
    """Pictures of the cases with the lowest mean Dice, read one at a time, without names.

    Args:
        dossier: The dossier.
        results: The results that it was made of.
        manifest: The image set of the cases.
        most: How many to show.
    """
    names = {f"case {place}": case for place, case in enumerate(results.cases, start=1)}
    means = dossier.table.groupby("case")["dice"].mean().dropna().sort_values(kind="stable")
    for number, dice in means.head(most).items():
        case = manifest.case(names[str(number)])
        item = overlay_of_case(
            manifest,
            case,
            results.predictions[case.id],
            caption=f"{number}: mean Dice {dice:.3f}",
            model=title_of(dossier.model),
        )
        yield replace(item, case=str(number))


def title_of(model: AssessedModel) -> str:
    """Registered name and version of a model; else its architecture and image set."""
    return f"{model.name} version {model.version}" if model.name else model.title


def _copies(dossier: Dossier) -> list[str]:
    if not dossier.copies:
        return []
    return [
        f"{dossier.copies} of the cases are copies of others: they are counted twice, and the "
        "intervals are too narrow"
    ]


def _judged(dossier: Dossier) -> list[str]:
    if not dossier.judged:
        return []
    counts = ", ".join(f"{number} {name}" for name, number in dossier.judged.items())
    return [
        f"results judged by reviewers: {counts}; reviewers see the most doubtful first, so these "
        "are no means over the archive"
    ]


def _verdict(dossier: Dossier) -> Iterator[ReportTable]:
    columns = ("criterion", "meaning", "structure", "value", "needed", "result")
    rows = [(*_asked(line), "pass" if line.is_fulfilled else "FAIL") for line in dossier.accept]
    note = (
        f"All criteria must be fulfilled. Values are of the {dossier.cases} scored cases, those of "
        "refusals of all cases."
    )
    yield ReportTable("Verdict", note, columns, rows)
    if dossier.stop:
        stops = [(*_asked(line), _stop_state(line)) for line in dossier.stop]
        note = "Use of the model ends when one of these limits is crossed, here or in a month."
        yield ReportTable("Stop rules", note, ("rule", *columns[1:]), stops)


def _asked(line: CriterionLine) -> tuple[str, ...]:
    return line.measure, measure_in_words(line.measure), line.of, line.found, line.needed


def _tables(dossier: Dossier, unit: str) -> Iterator[ReportTable]:
    yield ReportTable(
        "Local scores beside the card",
        "Mean with its 95 % bootstrap interval over n cases, here and on the held-out cases of the "
        "card. A missed structure counts as Dice 0 and as the image diagonal; refused cases have "
        "no score. Loss is how much worse than the card, negative is better; p is one-sided "
        f"(Welch), after Holm's correction; NSD is not tested. A shift is p < 0.05 and a loss of "
        f"more than {MARGIN:g} ({MARGIN_MM:g} {unit}).",
        ("structure", "metric", "here", "n", "card", "n of the card", "loss", "p", "result"),
        [_score_cells(row, unit) for row in dossier.scores if row.metric in SHOWN_METRICS],
    )
    yield _groups(dossier)
    yield from _site_tables(dossier)


def _stop_state(line: CriterionLine) -> str:
    if line.value is None:
        return "not known"
    return "kept" if line.is_fulfilled else "CROSSED"


def _groups(dossier: Dossier) -> ReportTable:
    note = (
        "Mean Dice of each group of n cases beside the others, and the difference with its 95 % "
        "bootstrap interval. p is that of a Mann-Whitney test, one-sided, after Holm's correction "
        f"over all comparisons. Worse is p < 0.05 and a difference of more than {GROUP_MARGIN:g}. "
        f"Groups with fewer than {FEWEST_CASES} cases are not compared. Refused cases are in no "
        "group."
    )
    if not dossier.groups:
        note = "No scanner, protocol, age or sex is stated in headers or manifest."
    return ReportTable(
        "Groups of cases",
        note,
        ("group", "value", "structure", "n", "Dice", "others", "n", "difference", "p", "result"),
        [
            (
                row.kind,
                row.value,
                row.label,
                str(row.n),
                _fixed(row.mean),
                _fixed(row.rest),
                str(row.n_rest),
                _interval(row.difference, row.ci_low, row.ci_high),
                _p(row.p_holm),
                "WORSE" if row.is_worse else "",
            )
            for row in dossier.groups
        ],
    )


def _site_tables(dossier: Dossier) -> Iterator[ReportTable]:
    reasons: Mapping[str, int] = dossier.archive.reasons if dossier.archive else {}
    names = list(dict.fromkeys([*dossier.refused, *reasons]))
    yield ReportTable(
        "Refusals by reason",
        "Cases that were refused or failed: they have no score and no result, and the other cases "
        "continued."
        if names
        else "None of the cases was refused.",
        ("reason", "local cases", "archive"),
        [(name, str(dossier.refused.get(name, 0)), str(reasons.get(name, 0))) for name in names],
    )
    if dossier.drift is None:
        note = "The package keeps no distributions of its training: drift is not known."
        yield ReportTable("Drift baseline", note, (), ())
    else:
        yield _drift("Drift baseline", dossier.drift)
    if dossier.archive and dossier.archive.drift:
        yield _drift("Drift in the archive's last run", dossier.archive.drift)
    archive = dossier.archive
    yield ReportTable(
        "Cost",
        "Mean wall time of a segmented case, without reading and writing for local cases; largest "
        "memory of the process, on a GPU of the device.",
        ("", "n", "seconds a case", "memory in MB"),
        [
            ("local cases", str(dossier.cases), _text(dossier.seconds), _text(dossier.memory_mb)),
            *(
                [("archive", str(archive.counts.get("done", 0)), _text(archive.seconds), UNKNOWN)]
                if archive
                else []
            ),
        ],
    )


def _charts(dossier: Dossier) -> list[ReportChart]:
    found = dossier.calibration
    if found is None:
        return []
    # Drawing loads matplotlib, which a record does without.
    from segmed.report.quality_figures import (  # noqa: PLC0415 - see above
        calibration_svg,
        risk_coverage_svg,
    )

    intervals = "; ".join(map(_intervals, found.rows))
    note = (
        f"The package predicts a Dice for each segmentation; one case a patient counts. "
        f"{intervals}. Risk is the mean of 1 - lowest Dice of the {len(found.curve.risk)} cases "
        "without those that are reviewed first, worst predicted quality first; AURC is the area "
        "under this curve, lower is better."
    )
    svgs = (calibration_svg(found.points), risk_coverage_svg(found.curve))
    return [ReportChart("Predicted quality", note, svgs)]


def _intervals(row: CalibrationRow) -> str:
    """Intervals of a structure in words."""
    if not row.n:
        return f"{row.label}: no interval is stated"
    return (
        f"{row.label}: {row.inside} of {row.n} intervals contain the Dice ({row.stated:.0%} stated)"
    )


def _drift(title: str, rows: Sequence[DriftRow]) -> ReportTable:
    note = (
        "Medians of n images and results here beside those of training: images beside the training "
        "images, results beside the model's own on held-out cases. The shift is in training "
        "interquartile ranges, of a share the difference."
    )
    if num_judged(rows) < MIN_STUDIES:
        note += f" Fewer than {MIN_STUDIES} cases cannot show drift: not judged."
    return ReportTable(
        title,
        note,
        ("feature", "training", "here", "shift", "n", "result"),
        [
            (
                feature_in_words(row.feature),
                _text(row.training),
                _text(row.run),
                f"{row.shift:+.2f}",
                str(row.num_run),
                "ALARM" if row.is_alarm else "",
            )
            for row in rows[:SHOWN_DRIFT]
        ],
    )


def _score_cells(row: ScoreRow, unit: str) -> tuple[str, ...]:
    title = next(metric.title for metric in METRICS if metric.name == row.metric)
    if row.metric.endswith("_mm"):
        title = f"{title} in {unit}"
    return (
        row.label,
        title,
        _interval(row.mean, row.ci_low, row.ci_high),
        str(row.n),
        _interval(row.card, row.card_ci_low, row.card_ci_high),
        UNKNOWN if row.card_n is None else str(row.card_n),
        UNKNOWN if row.loss is None else f"{row.loss:+.3f}",
        _p(row.p_holm),
        "SHIFT" if row.is_shift else "",
    )


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return _fixed(value)
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _fixed(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else _fixed(value)


def _text(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"
