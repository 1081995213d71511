"""`segmed doctor`: check this machine and its servers; suggest repairs."""

from __future__ import annotations

from pipelines.doctor.examine import ExaminationTarget, examine
from pipelines.doctor.finding import Finding

__all__ = ["ExaminationTarget", "Finding", "examine"]
