"""Place of a quality model in its package, and its part in the package's hash.

Read with every card, so it imports neither NumPy nor PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segmed.io.digest import sha256_of_json, sha256_of_text

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
