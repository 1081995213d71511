"""Seven networks from one builder: `build_model(name, spatial_dims=..., ...)`."""

from segmed.models.describe import ModelCard, describe_model
from segmed.models.registry import build_model, list_models
from segmed.models.weights import WeightsReport, load_weights, read_weights

__all__ = [
    "ModelCard",
    "WeightsReport",
    "build_model",
    "describe_model",
    "list_models",
    "load_weights",
    "read_weights",
]
