"""OpenVINO without the part of it that reports usage: its mere import would look up a server."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

SILENCED = "openvino_telemetry"
"""The package that reports; where it is not to be had, OpenVINO goes on with a stub of its own."""


def has_openvino() -> bool:
    """Return whether the optional dependency is installed."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino(module: str = "openvino") -> Any:
    """Import OpenVINO, or a module of it; no environment variable keeps it from reporting.

    Raises:
        ImportError: It is not installed.
    """
    sys.modules.setdefault(SILENCED, None)  # type: ignore[arg-type]  # None forbids the import
    return importlib.import_module(module)
