"""Manifests: images, labels and folds of a project, and the audit of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.manifest.build import FORMATS, build_manifest
    from segmed.manifest.census import census_lines
    from segmed.manifest.check import check_manifest
    from segmed.manifest.clean import clean_manifest, write_clean
    from segmed.manifest.content import case_hash, data_hash, digest, image_digest
    from segmed.manifest.faults import ManifestFault
    from segmed.manifest.folds import assign_folds
    from segmed.manifest.guesses import Guess, guesses_of, state_modalities
    from segmed.manifest.ignored import ignore_values
    from segmed.manifest.json_form import read_manifest, rebase, write_manifest
    from segmed.manifest.reference import read_reference
    from segmed.manifest.schema import Case, Manifest, StoredLabel
    from segmed.manifest.to_nnunet import write_nnunet
    from segmed.manifest.value_changes import change_values, make_regions, rename_labels
    from segmed.structures import Channel, Code, LabelClass
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.manifest.build": "FORMATS build_manifest",
            "segmed.manifest.census": "census_lines",
            "segmed.manifest.check": "check_manifest",
            "segmed.manifest.clean": "clean_manifest write_clean",
            "segmed.manifest.content": "case_hash data_hash digest image_digest",
            "segmed.manifest.faults": "ManifestFault",
            "segmed.manifest.folds": "assign_folds",
            "segmed.manifest.guesses": "Guess guesses_of state_modalities",
            "segmed.manifest.json_form": "read_manifest rebase write_manifest",
            "segmed.manifest.reference": "read_reference",
            "segmed.manifest.schema": "Case Manifest StoredLabel",
            "segmed.manifest.ignored": "ignore_values",
            "segmed.manifest.to_nnunet": "write_nnunet",
            "segmed.manifest.value_changes": "change_values make_regions rename_labels",
            "segmed.structures": "Channel Code LabelClass",
        },
    )

__all__ = [
    "FORMATS",
    "Case",
    "Channel",
    "Code",
    "Guess",
    "LabelClass",
    "Manifest",
    "ManifestFault",
    "StoredLabel",
    "assign_folds",
    "build_manifest",
    "case_hash",
    "census_lines",
    "change_values",
    "check_manifest",
    "clean_manifest",
    "data_hash",
    "digest",
    "guesses_of",
    "ignore_values",
    "image_digest",
    "make_regions",
    "read_manifest",
    "read_reference",
    "rebase",
    "rename_labels",
    "state_modalities",
    "write_clean",
    "write_manifest",
    "write_nnunet",
]
