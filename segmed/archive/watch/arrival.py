"""A study that arrives, and the rules by which it counts as complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from segmed.archive.study import NotImage, Study, StudySource
from segmed.structures import Frozen

QUIET_S = 20.0
LONGEST_WAIT_S = 3600.0

Verdict = Literal["arriving", "complete", "overdue"]


@dataclass(frozen=True)
class SeriesSeen:
    """One series of a study, as far as it has arrived.

    Attributes:
        modality: Such as `MR`.
        description: SeriesDescription; never logged.
        body_part: BodyPartExamined.
        instances: Instances that have arrived; 0 if the sender does not say.
    """

    modality: str = ""
    description: str = field(default="", repr=False)
    body_part: str = ""
    instances: int = 0


@dataclass(frozen=True)
class Arrival:
    """State of a study that is arriving, or was not segmented in its present state.

    Attributes:
        ref: Reference by which its feed finds it; may identify a patient for a PACS.
        name: Short hash that names it in lists.
        series: Its series.
        first: Time when it was first seen, in s since 1970.
        last: Time of its last change.
        is_stable: The sender itself says that the study is stable.
    """

    ref: str = field(repr=False)
    name: str
    series: tuple[SeriesSeen, ...]
    first: float
    last: float
    is_stable: bool = False

    @property
    def instances(self) -> int:
        """Instances that have arrived."""
        return sum(series.instances for series in self.series)


class Feed(Protocol):
    """Source of arriving studies."""

    def arrivals(self) -> list[Arrival]:
        """Studies that were not segmented in their present state, as they are now.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """
        ...

    def state_of(self, ref: str) -> str:
        """Hash that changes with every change of a study."""
        ...

    def units(self, ref: str, source: StudySource) -> Iterator[Study | NotImage]:
        """Units of work of a study for a source of a run.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """
        ...

    def settle(self, ref: str, state: str) -> None:
        """Note that all is done about a state of a study, unless it has changed since."""
        ...

    def remove_settled(self, older_than_s: float) -> int:
        """Remove received images of studies settled since so long; returns how many studies."""
        ...


class Completeness(Frozen):
    """Rules by which a study is complete.

    Attributes:
        quiet_s: Nothing arrived for so long, in s. A server that reports stable studies (Orthanc)
            decides this by itself.
        series: Regular expressions of descriptions of series that must be there, whatever the case.
        min_series: Fewest series.
        min_instances: Fewest instances.
        longest_wait_s: Time after the last change when a study without what it must have is refused
            as `incomplete`, in s.
    """

    quiet_s: NonNegativeFloat = QUIET_S
    series: tuple[str, ...] = ()
    min_series: PositiveInt = 1
    min_instances: PositiveInt = 1
    longest_wait_s: PositiveFloat = LONGEST_WAIT_S

    @field_validator("series")
    @classmethod
    def _are_expressions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            is_expression(text)
        return value

    def judge(self, arrival: Arrival, now: float) -> tuple[Verdict, str]:
        """Verdict on a study, with the reason in words.

        Args:
            arrival: The study.
            now: Time, in s since 1970.
        """
        quiet = now - arrival.last
        if not arrival.is_stable and quiet < self.quiet_s:
            return "arriving", f"quiet for less than {self.quiet_s:g} s"
        missing = self._missing(arrival)
        if not missing:
            return "complete", ""
        if quiet < self.longest_wait_s:
            return "arriving", missing
        return "overdue", f"{missing} {self.longest_wait_s:g} s after the last change"

    def _missing(self, arrival: Arrival) -> str:
        """Describe the first thing that a study lacks; empty if it is complete."""
        for number, expression in enumerate(self.series, 1):
            if not any(re.search(expression, s.description, re.I) for s in arrival.series):
                return f"expected series {number} of {len(self.series)} is missing"
        if len(arrival.series) < self.min_series:
            return f"{len(arrival.series)} of at least {self.min_series} series"
        if arrival.instances < self.min_instances:
            return f"{arrival.instances} of at least {self.min_instances} instances"
        return ""


def is_expression(text: str) -> None:
    """Require a regular expression.

    Raises:
        ValueError: The text is none.
    """
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
