"""Predicted quality of an archive: its promise about the unreviewed, withdrawn where cases drift.

Intervals and promises are earned on cases that the new ones must be exchangeable with. Results that
raise an alarm of the drift watch, and those that come while it is in force (see
`segmed.archive.drift_windows`), therefore have neither: the features at fault are named, in
`quality.json` and wherever the promise would be.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segmed.archive.drift import MIN_STUDIES
from segmed.archive.drift_windows import carry_over, judge_drift
from segmed.archive.ledger import Entry, Ledger
from segmed.archive.model import Model
from segmed.io.atomic import write_whole
from segmed.quality.risk import RiskTarget

logger = logging.getLogger(__name__)

QUALITY_FILE = "quality.json"

ENDS = ("low", "high", "volume_low_ml", "volume_high_ml")
"""Ends of intervals in the record of a structure."""


@dataclass(frozen=True)
class ArchiveBound:
    """Promise of a model for the results of an archive.

    Attributes:
        model: Hash of the model.
        run: Last run.
        is_promised: Whether the promise is in force.
        sentence: The promise, or why there is none, in words.
        threshold: Score below which a result is to be reviewed; None without predicted quality.
        review: Expected share of review at this threshold.
        upper: Upper bound of the share of failures among the unreviewed, at the requested review.
        withdrawn: Drifting features, by which promise and intervals are withdrawn.
        is_watched: Whether there were enough studies, and the training is known, to show drift.
        to_review: Results of the last run below the threshold.
        target: The promise: review, risk, dice, confidence.
        withdrawn_runs: Features by number of run, of all runs whose promise is withdrawn.
    """

    model: str
    run: int
    is_promised: bool
    sentence: str
    threshold: float | None
    review: float | None
    upper: float | None
    withdrawn: tuple[str, ...] = ()
    is_watched: bool = False
    to_review: int = 0
    target: Mapping[str, float] = field(default_factory=dict)
    withdrawn_runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def quality_of(self, entry: Entry) -> dict[str, Any] | None:
        """Predicted quality of a result as JSON values, without what is withdrawn.

        Args:
            entry: The result; of another model than this one's it keeps what was stated then.
        """
        stated = entry.measures.get("quality")
        if stated is None:
            return None
        features = self.withdrawn_runs.get(str(entry.worked), ())
        if features:
            reason = f"withdrawn: {', '.join(features)} drifted from the training"
            structures = {
                name: {**item, **dict.fromkeys(ENDS), "reason": reason}
                for name, item in stated["structures"].items()
            }
            stated = {**stated, "structures": structures}
        is_own = entry.package == self.model and self.threshold is not None
        to_review = is_own and stated["score"] < self.threshold
        return {**stated, **({"to_review": to_review} if is_own else {})}


NO_BOUND = ArchiveBound(
    model="", run=0, is_promised=False, sentence="", threshold=None, review=None, upper=None
)


def settle_bound(
    ledger: Ledger,
    run: int,
    model: Model,
    out_dir: Path,
    *,
    target: RiskTarget | None = None,
) -> ArchiveBound:
    """Judge the drift of a run, and write `drift.csv` and `quality.json`.

    Args:
        ledger: The ledger.
        run: Number of the run.
        model: The model of the run.
        out_dir: Output folder of the archive.
        target: The promise; that of the model if not given.

    Returns:
        The bound; `NO_BOUND` of a model without predicted quality, whose `quality.json` is removed.
    """
    path, earlier = out_dir / QUALITY_FILE, read_bound(out_dir)
    known = earlier if earlier.model == model.hash else NO_BOUND
    carry_over(out_dir, model.hash, known.run, known.withdrawn)
    judgement = judge_drift(ledger, run, model.hash, model.norms, out_dir=out_dir)
    if model.quality is None:
        path.unlink(missing_ok=True)
        return NO_BOUND
    alarm, is_watched = judgement.alarm, judgement.is_judged
    withdrawn = alarm.features
    bound = model.quality.bound(target)
    runs = dict(known.withdrawn_runs)
    if withdrawn:
        runs |= {str(number): withdrawn for number in range(alarm.first, run + 1)}
    settled = ArchiveBound(
        model=model.hash,
        run=run,
        is_promised=bound.is_promised and not withdrawn,
        sentence=_sentence(bound.sentence, withdrawn, is_watched=is_watched),
        threshold=bound.threshold,
        review=bound.review,
        upper=bound.upper,
        withdrawn=withdrawn,
        is_watched=is_watched,
        to_review=_to_review(ledger, run, model.hash, bound.threshold),
        target=bound.target.model_dump(),
        withdrawn_runs=runs,
    )
    write_whole(path, json.dumps(asdict(settled), indent=2))
    return settled


def are_intervals_withdrawn(out_dir: Path, model: str) -> bool:
    """Return whether a withdrawal of the intervals of a model is in force.

    Args:
        out_dir: Output folder of the archive.
        model: Hash of the model.
    """
    bound = read_bound(out_dir)
    return bound.model == model and bool(bound.withdrawn)


def read_bound(out_dir: Path) -> ArchiveBound:
    """Bound that the last run of an output folder settled; `NO_BOUND` if there is none."""
    path = out_dir / QUALITY_FILE
    if not path.is_file():
        return NO_BOUND
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs = {number: tuple(names) for number, names in content.pop("withdrawn_runs").items()}
        withdrawn = tuple(content.pop("withdrawn"))
        return ArchiveBound(**content, withdrawn=withdrawn, withdrawn_runs=runs)
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.warning("%s is damaged or of another version; drift of earlier runs is lost", path)
        return NO_BOUND


def _sentence(promise: str, withdrawn: Sequence[str], *, is_watched: bool) -> str:
    if withdrawn:
        return (
            f"withdrawn: {', '.join(withdrawn)} drifted from the training, so neither intervals "
            "nor a promise apply; review all results, or test the model on local cases"
        )
    if is_watched or promise.startswith("no promise"):
        return promise
    return f"{promise}; fewer than {MIN_STUDIES} new studies cannot show whether it applies"


def _to_review(ledger: Ledger, run: int, model: str, threshold: float) -> int:
    first, found = ledger.first_run_of(run), set()
    for _, entry in ledger.met(run):
        quality = entry.measures.get("quality")
        if quality is None or entry.state != "done" or entry.package != model:
            continue
        if first <= entry.worked <= run and quality["score"] < threshold:
            found.add(entry.key)
    return len(found)
