"""Installed versions and their compatibility."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator

from packaging.specifiers import SpecifierSet

from pipelines.doctor.finding import Finding
from pipelines.environment import DEFAULTS
from segmed import __version__

NEEDED = (
    "torch",
    "monai",
    "numpy",
    "nibabel",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "prefect",
    "fastapi",
    "SQLAlchemy",
    "mlflow",
)
"""Packages that nothing works without."""

USEFUL = ("openvino", "nncf", "onnx")
"""Packages that one may do without."""

PINS = {
    "fastapi": (">=0.139,<0.151", "newer ones stop Prefect's server or make it answer 422"),
    "SQLAlchemy": (">=2.0,<2.1", "with 2.1 Prefect's scheduler never creates a run"),
    "mlflow": (">=3.17,<3.18", "packages are registered in that version's form"),
    "torch": ("==2.13.0", "other versions were not tried"),
}
"""Required versions, and the reasons."""

TELEMETRY = tuple(name for name in DEFAULTS if name == "DO_NOT_TRACK" or "TELEMETRY" in name)


def look_at_versions() -> Iterator[Finding]:
    """Python, the packages, and whether any of them may report home."""
    yield Finding("segmed", f"{__version__} on Python {platform.python_version()}")
    found = {name: version_of(name) for name in (*NEEDED, *USEFUL)}
    missing = [name for name in NEEDED if found[name] is None]
    listed = ", ".join(f"{name} {version or 'not installed'}" for name, version in found.items())
    if missing:
        repair = "install segmed anew: pip install -c requirements.lock segmed"
        yield Finding("versions", f"{', '.join(missing)} missing", "problem", repair)
    else:
        yield Finding("versions", listed)
    for name, (wanted, why) in PINS.items():
        version = found[name]
        if version is not None and not SpecifierSet(wanted).contains(version, prereleases=True):
            repair = f"pip install '{name}{wanted}'"
            yield Finding("versions", f"{name} {version}: {why}", "problem", repair)
    loud = [name for name in TELEMETRY if os.environ.get(name) != DEFAULTS[name]]
    if loud:
        repair = " ".join(["set", *[f"{name}={DEFAULTS[name]}" for name in loud]])
        yield Finding("telemetry", f"{', '.join(loud)} changed", "warning", repair)
    else:
        yield Finding("telemetry", "off")


def version_of(name: str) -> str | None:
    """The version of an installed package; None where it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
