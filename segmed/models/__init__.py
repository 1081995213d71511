"""Seven networks from one builder: `build_model(name, spatial_dims=..., ...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.models.describe import ModelCard, describe_model
    from segmed.models.names import list_models
    from segmed.models.registry import build_model
    from segmed.models.weights import WeightsReport, load_weights, read_weights
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.models.describe": "ModelCard describe_model",
            "segmed.models.names": "list_models",
            "segmed.models.registry": "build_model",
            "segmed.models.weights": "WeightsReport load_weights read_weights",
        },
    )

__all__ = [
    "ModelCard",
    "WeightsReport",
    "build_model",
    "describe_model",
    "list_models",
    "load_weights",
    "read_weights",
]
