"""A small image set for commands that build a manifest."""

from __future__ import annotations

from small_sets import paired_set, save_nifti

__all__ = ["paired_set", "save_nifti"]
