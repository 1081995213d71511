"""Quality model of a package, in its provenance as JSON values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from segmed.errors import PackageError
from segmed.quality.identity import PREDICTED_QUALITY
from segmed.quality.model import SCHEMA_VERSION, QualityModel
from segmed.validation import first_fault

logger = logging.getLogger(__name__)


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
