"""Faults of an input that are found before it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class InputFault:
    """Reason why a study cannot be segmented.

    Attributes:
        reason: Short stable code such as `missing_slice`.
        message: One line for people.
        files: The files at fault, if they are known.
    """

    reason: str
    message: str
    files: tuple[Path, ...] = ()
