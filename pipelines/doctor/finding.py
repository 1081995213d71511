"""One finding of a check: the fact, its severity, and the repair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: Name of the thing, such as `disk`.
        fact: What was found.
        state: `problem` where something does not work or soon will not; `warning` where somebody
            should know.
        repair: What would do; empty where all is well.
    """

    what: str
    fact: str
    state: State = "ok"
    repair: str = ""

    def line(self) -> str:
        """The finding as a line."""
        if self.state == "ok":
            return f"{self.what}: {self.fact}"
        return f"{self.state}: {self.what}: {self.fact}; {self.repair}"
