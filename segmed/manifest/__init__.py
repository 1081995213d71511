"""Manifests: which images, labels and folds a project works on, and whether they are sound."""

from segmed.manifest.content import case_hash, data_hash, digest
from segmed.manifest.folds import assign_folds
from segmed.manifest.json_form import read_manifest, rebase, write_manifest
from segmed.manifest.schema import Case, Channel, Code, LabelClass, Manifest

__all__ = [
    "Case",
    "Channel",
    "Code",
    "LabelClass",
    "Manifest",
    "assign_folds",
    "case_hash",
    "data_hash",
    "digest",
    "read_manifest",
    "rebase",
    "write_manifest",
]
