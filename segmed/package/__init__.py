"""Model packages: a model that can be used, on disk; checked, unzipped, brought up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.package.card import CARD_FILE, FILES, PLAN_FILE, WEIGHTS_FILE
    from segmed.package.model_package import ModelPackage
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.package.card": "CARD_FILE FILES PLAN_FILE WEIGHTS_FILE",
            "segmed.package.model_package": "ModelPackage",
        },
    )

__all__ = ["CARD_FILE", "FILES", "PLAN_FILE", "WEIGHTS_FILE", "ModelPackage"]
