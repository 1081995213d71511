"""Criteria of acceptance and stop rules: a YAML, checked by name, and their application."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, model_validator

from segmed.errors import UsageError, unknown_name
from segmed.metrics.score import MEAN_LABEL, METRICS
from segmed.metrics.summary import RECORDED_METRICS
from segmed.structures import Frozen
from segmed.validation import first_fault

EACH = "each"
"""Structure of a criterion that applies to every one."""

LOSS = "_loss"
"""End of the name of a measure: how much worse than the card, positive is worse."""

OF_SITE = {
    "cases": "labelled cases scored",
    "patients": "patients among them",
    "missed": "share of the structures in the references that were missed",
    "invented": "share of the places without a structure in which one was found",
    "refused": "share of the cases that were refused or failed",
    "groups": "groups of cases that are scored significantly worse than the rest",
    "shifts": "structures scored significantly worse than on the card",
    "drift": "features of the images or results that are not as in the training",
    "below": "upper 95 % bound of the share of cases under the Dice of the bound",
    "seconds": "mean time of a case, in s",
    "memory_mb": "largest memory, in MB",
    "corrected": "share of the judged results that reviewers corrected",
    "rejected": "share of the judged results that reviewers rejected",
}
"""Measures of the whole site."""

OF_STRUCTURES = {
    **{metric.name: f"mean {metric.title}" for metric in METRICS if metric.name in RECORDED_METRICS}
}
"""Measures of a structure; the unfavourable end of the 95 % interval counts."""

MEASURES = (*OF_SITE, *OF_STRUCTURES, *(f"{name}{LOSS}" for name in OF_STRUCTURES))

Fact = float | str
"""Value of a measure, or the reason in words why it is not known."""

Facts = Mapping[tuple[str, str], Fact]
"""Facts by measure and structure, the structure empty for measures of the site."""

NOT_MEASURED = "not measured"
"""Reason of a measure about which nothing is stated."""


class Criterion(Frozen):
    """One condition on a measure.

    Attributes:
        measure: One of `MEASURES`.
        of: Structure, `mean` over all, or `each`; for measures of structures only.
        at_least: Lowest value that fulfils it.
        at_most: Highest value that fulfils it.
    """

    measure: str
    of: str = MEAN_LABEL
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _require_meaning(self) -> Criterion:
        if self.measure not in MEASURES:
            raise ValueError(str(unknown_name("measure", self.measure, MEASURES)))
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"{self.measure}: give one of at_least and at_most")
        if self.measure in OF_SITE and self.of != MEAN_LABEL:
            raise ValueError(f"{self.measure} is of the whole site: leave `of` out")
        return self

    @property
    def bound(self) -> str:
        """The condition in words."""
        side, value = "at most", self.at_most
        if self.at_least is not None:
            side, value = "at least", self.at_least
        return f"{side} {value:g}"


class BoundTerms(Frozen):
    """Statement on the share of bad results, and its terms.

    Attributes:
        dice: A patient counts as bad if the Dice of one structure is under this.
        review: Share of the cases, those of the lowest predicted quality, that is reviewed.
        risk: Largest share of bad patients among the others that the package is to promise.
        confidence: One-sided confidence of the bound.
    """

    dice: Annotated[float, Field(gt=0, lt=1)] = 0.8
    review: Annotated[float, Field(ge=0, lt=1)] = 0.1
    risk: Annotated[float, Field(gt=0, lt=1)] = 0.05
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Criteria(Frozen):
    """Everything that a verdict depends on.

    Attributes:
        accept: Conditions, all of which must be fulfilled.
        stop: Conditions of which one alone ends the use of the model.
        bound: Terms of the bound on bad results.
    """

    accept: Annotated[tuple[Criterion, ...], Field(min_length=1)]
    stop: tuple[Criterion, ...] = ()
    bound: BoundTerms = BoundTerms()


def in_words(measure: str) -> str:
    """Definition of a measure, for a reader.

    Args:
        measure: One of `MEASURES`.
    """
    if measure in OF_SITE:
        return OF_SITE[measure]
    if not measure.endswith(LOSS):
        return f"{OF_STRUCTURES[measure]}, unfavourable end of its 95 % interval"
    of = OF_STRUCTURES[measure.removesuffix(LOSS)]
    return f"loss of {of} against the card, upper end of its one-sided 95 % interval"


@dataclass(frozen=True)
class CriterionLine:
    """One criterion applied.

    Attributes:
        measure: Name of the measure.
        of: Structure; empty for measures of the site.
        value: What was measured; None where it could not be.
        needed: The condition in words.
        is_fulfilled: Whether the value fulfils it; a value that is not known does not.
        unknown: Reason why the value is not known; empty where it is.
    """

    measure: str
    of: str
    value: float | None
    needed: str
    is_fulfilled: bool
    unknown: str = ""

    @property
    def found(self) -> str:
        """The value, or the reason why it is not known."""
        return self.unknown if self.value is None else f"{self.value:.4g}"

    @property
    def sentence(self) -> str:
        """The line in words."""
        name = f"{self.measure} of {self.of}" if self.of else self.measure
        return f"{name}: {self.found}, needed {self.needed}"


def read_criteria(path: Path) -> Criteria:
    """Criteria from a YAML file.

    Raises:
        UsageError: The file is missing, is not YAML, or a field is wrong; the message names it.
    """
    try:
        return Criteria.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UsageError(f"there is no file of criteria at {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UsageError(f"{path}: {first_fault(error)}") from error


def require_known_structures(criteria: Criteria, names: Sequence[str]) -> None:
    """Refuse criteria on structures that the model does not segment.

    Raises:
        UsageError: There is one; the structures are listed.
    """
    known = [*names, MEAN_LABEL, EACH]
    for criterion in (*criteria.accept, *criteria.stop):
        if criterion.of not in known:
            raise unknown_name("structure of a criterion", criterion.of, known)


def apply(criteria: Sequence[Criterion], facts: Facts) -> list[CriterionLine]:
    """Apply conditions to what was measured; one line a condition and structure."""
    return [line for criterion in criteria for line in _lines(criterion, facts)]


def _lines(criterion: Criterion, facts: Facts) -> Iterator[CriterionLine]:
    for of in _structures_of(criterion, facts):
        value = facts.get((criterion.measure, of), NOT_MEASURED)
        if isinstance(value, str):
            yield CriterionLine(criterion.measure, of, None, criterion.bound, False, value)
            continue
        if criterion.at_least is not None:
            is_fulfilled = value >= criterion.at_least
        else:
            assert criterion.at_most is not None
            is_fulfilled = value <= criterion.at_most
        yield CriterionLine(criterion.measure, of, value, criterion.bound, is_fulfilled)


def _structures_of(criterion: Criterion, facts: Facts) -> list[str]:
    if criterion.measure in OF_SITE:
        return [""]
    if criterion.of != EACH:
        return [criterion.of]
    names = [of for name, of in facts if name == criterion.measure]
    return [name for name in names if name != MEAN_LABEL] or names
