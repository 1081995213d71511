"""Errors of pydantic in words: the first wrong field, what was found there, and how many more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class FaultList(Protocol):
    """Error of pydantic, or of FastAPI, that lists faults."""

    def errors(self) -> Sequence[Any]:
        """The faults, as pydantic describes them."""


@dataclass(frozen=True)
class FieldFault:
    """The first fault that a validation found.

    Attributes:
        field: Dotted name of the field; empty if the whole is at fault.
        message: What is wrong with it.
        given: What was found there, shortened.
        num_others: Faults besides it.
    """

    field: str
    message: str
    given: str
    num_others: int

    @property
    def sentence(self) -> str:
        """Message and number of the other faults."""
        return self.message + (f" (and {self.num_others} more)" if self.num_others else "")

    def __str__(self) -> str:
        """Field and sentence in one line."""
        return f"field {self.field!r}: {self.sentence}" if self.field else self.sentence


LONGEST_GIVEN = 80
"""Characters of a wrong value that a message shows."""


def first_fault(error: FaultList) -> FieldFault:
    """The first fault of a pydantic error, for one-line messages."""
    first, *others = error.errors()
    return FieldFault(
        ".".join(str(part) for part in first["loc"]),
        first["msg"],
        str(first.get("input"))[:LONGEST_GIVEN],
        len(others),
    )
