"""Small image sets in the layouts that manifests are built from, and the processes that read."""

from __future__ import annotations

from sandbox_processes import sandbox
from small_sets import paired_set, save_nifti

__all__ = ["paired_set", "sandbox", "save_nifti"]
