"""The model registry: versions, the gate, aliases, cards, export and import.

The library imports it to resolve references of the registry, as in
`segmed.Predictor.load("models:/NAME@champion")`: it is announced as an entry point.
"""

from __future__ import annotations

from pathlib import Path

from segmed.package.resolvers import register_resolver


def _folder_of(reference: str) -> Path:
    """The local folder of a registered package."""
    from pipelines.registry.loading import resolve_model  # noqa: PLC0415 - loads the registry

    return resolve_model(reference).path


register_resolver("models", _folder_of)
