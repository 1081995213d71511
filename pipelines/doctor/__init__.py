"""`segmed doctor`: is all well on this machine and with its servers, and what would mend it?"""

from __future__ import annotations

from pipelines.doctor.examine import Subject, examine
from pipelines.doctor.finding import Finding

__all__ = ["Finding", "Subject", "examine"]
