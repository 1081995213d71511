"""Conditions on the series of a DICOM study, for folders and PACS alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from segmed.errors import UsageError
from segmed.formats import NEVER_IMAGES, SEGMENTATION_MODALITIES


class Described(Protocol):
    """Header fields by which a series is selected."""

    @property
    def modality(self) -> str:
        """Such as `MR`."""
        ...

    @property
    def description(self) -> str:
        """SeriesDescription; never logged."""
        ...

    @property
    def body_part(self) -> str:
        """BodyPartExamined."""
        ...


S = TypeVar("S", bound=Described)


@dataclass(frozen=True)
class SeriesQuery:
    """Conditions on header fields of series.

    Attributes:
        modalities: Modalities of the series; empty for all images.
        description: Regular expression searched in SeriesDescription, whatever the case.
        body_part: BodyPartExamined, whatever the case.
        not_segmented: Only studies without any segmentation yet, by any program.

    Raises:
        UsageError: `description` is not a regular expression.
    """

    modalities: tuple[str, ...] = ()
    description: str | None = None
    body_part: str | None = None
    not_segmented: bool = False

    def __post_init__(self) -> None:
        """Check the expression."""
        try:
            re.compile(self.description or "")
        except re.error as error:
            raise UsageError(
                f"the description {self.description!r} is not a regular expression ({error}); "
                r"write a dot for any character, \( for a bracket"
            ) from error

    @property
    def asks_of_headers(self) -> bool:
        """Return whether only DICOM series can answer; volume files have no such fields."""
        return bool(self.modalities or self.description or self.body_part)

    def select(self, study: Sequence[S]) -> list[S]:
        """The matching image series among all series of one study.

        This is decided here rather than by a server, since servers differ in what they match.
        """
        if self.not_segmented and any(item.modality in SEGMENTATION_MODALITIES for item in study):
            return []
        return [item for item in study if self.misfit(item) is None]

    def misfit(self, series: Described) -> str | None:
        """Reason why a series does not match; free text is not quoted, since it may be personal."""
        if series.modality in NEVER_IMAGES:
            return f"modality {series.modality} is no image to segment"
        if self.modalities and series.modality not in self.modalities:
            wanted = " or ".join(self.modalities)
            return f"modality {series.modality or 'unknown'} instead of {wanted}"
        if self.body_part is not None and series.body_part.upper() != self.body_part.upper():
            return f"another body part than {self.body_part}"
        expression = self.description
        if expression is None or re.search(expression, series.description, re.IGNORECASE):
            return None
        return "another description"
