"""Model packages: a model that can be used, on disk; checked, unzipped, brought up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.late import exported_late

if TYPE_CHECKING:
    from segmed.package.card import CARD_FILE, FILES, PLAN_FILE, WEIGHTS_FILE
    from segmed.package.model_package import ModelPackage
else:
    __getattr__ = exported_late(
        __name__,
        {
            "segmed.package.card": "CARD_FILE FILES PLAN_FILE WEIGHTS_FILE",
            "segmed.package.model_package": "ModelPackage",
        },
    )

__all__ = ["CARD_FILE", "FILES", "PLAN_FILE", "WEIGHTS_FILE", "ModelPackage"]
