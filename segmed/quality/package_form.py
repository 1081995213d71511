"""Quality model of a package, in its provenance as JSON values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from segmed.errors import PackageError
from segmed.io.digest import sha256_of_json, sha256_of_text
from segmed.quality.model import SCHEMA_VERSION, QualityModel
from segmed.validation import first_fault

logger = logging.getLogger(__name__)

PREDICTED_QUALITY = "predicted_quality"
"""Key of the quality model in a package's provenance."""


def quality_digest(provenance: Mapping[str, Any]) -> str | None:
    """Digest of a quality model that is part of its package's hash; None of others.

    Those are models fitted on cases that were given after the training, and those with another
    promise than the default one: the same networks may have several, and each is a model of its
    own to registry, cache and ledger.

    Args:
        provenance: The package's provenance.
    """
    stored = provenance.get(PREDICTED_QUALITY)
    if not isinstance(stored, Mapping):
        return None
    is_own = stored.get("basis") == "local" or stored.get("target") is not None
    return sha256_of_json(stored) if is_own else None


def hash_with_quality(package_hash: str, provenance: Mapping[str, Any]) -> str:
    """Hash of a package, with its quality model if that is part of it."""
    digest = quality_digest(provenance)
    return package_hash if digest is None else sha256_of_text(f"{package_hash}|quality|{digest}")


def quality_model_in(provenance: Mapping[str, Any]) -> QualityModel | None:
    """The quality model of a package; None if it has none, or one of another version's form.

    Args:
        provenance: The package's provenance.

    Raises:
        PackageError: It is damaged.
    """
    stored = provenance.get(PREDICTED_QUALITY)
    if stored is None:
        return None
    if isinstance(stored, Mapping) and stored.get("schema_version") != SCHEMA_VERSION:
        logger.warning(
            "the package's predicted quality has form %s and this segmed reads form %d: results "
            "come without predicted quality; train or join the package with this version",
            stored.get("schema_version"),
            SCHEMA_VERSION,
        )
        return None
    try:
        return QualityModel.model_validate(stored)
    except ValidationError as error:
        raise PackageError(f"the package's {PREDICTED_QUALITY}: {first_fault(error)}") from error
