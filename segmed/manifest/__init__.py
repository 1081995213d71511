"""Manifests: which images, labels and folds a project works on, and whether they are sound."""

from segmed.manifest.build import FORMATS, build_manifest
from segmed.manifest.check import check_manifest
from segmed.manifest.clean import clean_manifest, write_clean
from segmed.manifest.content import case_hash, data_hash, digest
from segmed.manifest.faults import Fault
from segmed.manifest.folds import assign_folds
from segmed.manifest.guesses import Guess, guesses_of, state_modalities
from segmed.manifest.json_form import read_manifest, rebase, write_manifest
from segmed.manifest.schema import Case, Manifest
from segmed.structures import Channel, Code, LabelClass

__all__ = [
    "FORMATS",
    "Case",
    "Channel",
    "Code",
    "Fault",
    "Guess",
    "LabelClass",
    "Manifest",
    "assign_folds",
    "build_manifest",
    "case_hash",
    "check_manifest",
    "clean_manifest",
    "data_hash",
    "digest",
    "guesses_of",
    "read_manifest",
    "rebase",
    "state_modalities",
    "write_clean",
    "write_manifest",
]
