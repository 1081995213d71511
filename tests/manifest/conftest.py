"""Small image sets in the layouts that manifests are built from."""

from __future__ import annotations

from small_sets import paired_set, save_nifti

__all__ = ["paired_set", "save_nifti"]
