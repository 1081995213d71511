"""Names of the engines, without the engines themselves."""

from __future__ import annotations

import logging
from typing import Literal, cast

from segmed.errors import unknown_name

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "torch", "compile", "openvino", "int8"]

ENGINES: tuple[str, ...] = ("auto", "torch", "compile", "openvino", "int8")
"""Every `EngineName`."""

ENGINE_HELP = (
    "auto (a GPU if there is one; else OpenVINO if installed, in int8 if the model has an accepted "
    "int8 network and the processor has int8 units; else PyTorch), torch, compile, openvino "
    "(float32) or int8."
)
"""Help text of `--engine`, the same in every command."""

EARLIER_NAMES: dict[str, EngineName] = {"steady": "auto"}
"""Engines by the names that they had in earlier versions."""


def engine_named(name: str) -> EngineName:
    """Return the engine of a name; earlier names are accepted with a note.

    Raises:
        UsageError: The name is unknown.
    """
    if name in EARLIER_NAMES:
        logger.warning("engine %r is now called %r", name, EARLIER_NAMES[name])
        return EARLIER_NAMES[name]
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    return cast("EngineName", name)
