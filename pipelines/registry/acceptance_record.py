"""Dossier of a registered version: artifacts of its run, and tags of the version."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipelines.registry.reference import Resolved
from pipelines.tracking.delivery import translated
from segmed.acceptance.dossier import Dossier
from segmed.acceptance.files import write_dossier

ACCEPTANCE_TAG = "segmed.acceptance"
"""Tag of a version: the verdict of its last dossier, in words."""

PLACE_TAG = "segmed.acceptance_dossier"
"""Tag of a version: artifact folder of its last dossier."""


def keep_dossier(resolved: Resolved, dossier: Dossier, *, folder: Path = Path()) -> str | None:
    """Keep a dossier with a registered version, without pictures of patients.

    Args:
        resolved: The model.
        dossier: Its dossier.
        folder: Working folder, for the embedded registry.

    Returns:
        The artifact folder; None for a model that comes from no registry.
    """
    if resolved.name is None or resolved.version is None:
        return None
    from pipelines.registry.versions import Registry  # noqa: PLC0415 - a folder needs no MLflow

    registry = Registry(folder)
    version = registry.version(resolved.name, resolved.version)
    stamp = dossier.created.replace(":", "").replace("+0000", "Z")
    place = f"acceptance/{stamp}-version{version.version}"
    with tempfile.TemporaryDirectory(prefix="segmed-dossier-") as scratch:
        write_dossier(Path(scratch), dossier)
        translated(
            registry.uri, lambda: registry.client.log_artifacts(version.run_id, scratch, place)
        )
    registry.set_version_tag(version, ACCEPTANCE_TAG, in_words(dossier))
    registry.set_version_tag(version, PLACE_TAG, place)
    return place


def in_words(dossier: Dossier) -> str:
    """The verdict in a line, for a tag."""
    state = "accepted" if dossier.is_accepted else "not accepted"
    period = f", {dossier.months}" if dossier.months else ""
    why = f": {dossier.reasons[0]}" if dossier.reasons else ""
    return f"{state} at {dossier.created} on {dossier.cases} cases{period}{why}"[:4000]
