"""Names of the architectures, without the architectures, for checks of a command line."""

from __future__ import annotations

from segmed.architectures import BUILT_IN, registered_names

NAMES = BUILT_IN
"""The built-in ones, in the order of publication."""


def list_models() -> tuple[str, ...]:
    """Names that `build_model` accepts.

    Returns:
        The built-in names in the order of publication, then the registered ones.
    """
    return (*NAMES, *registered_names())
