"""Model packages: a model that can be used, on disk; checked, unzipped, brought up to date."""

from segmed.package.model_package import (
    CARD_FILE,
    FILES,
    PLAN_FILE,
    WEIGHTS_FILE,
    ModelPackage,
)

__all__ = ["CARD_FILE", "FILES", "PLAN_FILE", "WEIGHTS_FILE", "ModelPackage"]
