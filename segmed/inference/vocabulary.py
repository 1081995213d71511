"""Names of the engines, without the engines themselves."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "steady", "torch", "compile", "openvino"]

ENGINES: tuple[str, ...] = ("auto", "steady", "torch", "compile", "openvino")
"""Every `EngineName`."""
