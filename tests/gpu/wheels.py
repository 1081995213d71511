"""Packages beside PyTorch, SciPy and pandas that training and inference import."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

PACKAGES = {
    "annotated-types": "annotated_types",
    "monai": "monai",
    "nibabel": "nibabel",
    "numcodecs": "numcodecs",
    "pillow": "PIL",
    "psutil": "psutil",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic_core",
    "pydicom": "pydicom",
    "PyYAML": "yaml",
    "safetensors": "safetensors",
    "typing-extensions": "typing_extensions",
    "typing-inspection": "typing_inspection",
}
"""Distributions and the modules by which they are imported; dependencies of these included."""


def wheels() -> list[str]:
    """Requirements for `pip download --no-deps`, of the versions that are installed here."""
    return [f"{name}{_version(name)}" for name in PACKAGES]


def missing_packages() -> list[str]:
    """Distributions that cannot be imported here."""
    return [name for name, module in PACKAGES.items() if find_spec(module) is None]


def _version(name: str) -> str:
    try:
        return f"=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return ""
