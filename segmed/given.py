"""Arguments of the front door that may be an object or the path of its file."""

from __future__ import annotations

from pathlib import Path

from segmed.errors import UsageError
from segmed.manifest.json_form import read_manifest
from segmed.manifest.schema import Manifest
from segmed.plan.schema import Plan
from segmed.plan.yaml_form import read_plan


def manifest_of(given: Manifest | Path | str) -> Manifest:
    """Return a manifest, read if a path was given.

    Raises:
        UsageError: It is neither a manifest nor a path.
        ManifestError: The file cannot be read.
    """
    if isinstance(given, Manifest):
        return given
    if isinstance(given, Path | str):
        return read_manifest(given)
    raise UsageError(
        f"manifest is a {type(given).__name__}: give a Manifest, as segmed.build_manifest makes "
        "it, or the path of its JSON file"
    )


def plan_of(given: Plan | Path | str) -> Plan:
    """Return a plan, read if a path was given.

    Raises:
        UsageError: It is neither a plan nor a path, or the file cannot be read.
    """
    if isinstance(given, Plan):
        return given
    if isinstance(given, Path | str):
        return read_plan(given)
    raise UsageError(
        f"plan is a {type(given).__name__}: give a Plan, as segmed.make_plan makes it, or the path "
        "of its YAML file"
    )
