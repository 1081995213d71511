"""`segmed doctor`: is all well on this machine and with its servers, and what would mend it?"""

from __future__ import annotations

from pipelines.doctor.examine import ExaminationTarget, examine
from pipelines.doctor.finding import Finding

__all__ = ["ExaminationTarget", "Finding", "examine"]
