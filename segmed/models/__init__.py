"""Seven networks from one builder: `build_model(name, spatial_dims=..., ...)`."""

from segmed.models.registry import build_model, list_models

__all__ = ["build_model", "list_models"]
