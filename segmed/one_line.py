"""One-line forms of objects, from the arguments that they were made with."""

from __future__ import annotations

import inspect
from pathlib import Path

LONGEST = 60
"""Longest form of one argument; the rest of a longer one is left out."""


class OneLine:
    """Mixin whose `repr` is the call that made the object, on one line.

    Shown are the arguments that the object keeps under their own names and that differ from their
    defaults; arrays are shown by type and shape.
    """

    def __repr__(self) -> str:
        shown: list[str] = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = vars(self).get(name, parameter.default)
            if value is inspect.Parameter.empty or _is_same(value, parameter.default):
                continue
            is_first = not shown and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            shown.append(brief(value) if is_first else f"{name}={brief(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def brief(value: object) -> str:
    """Return a short form of a value on one line.

    Args:
        value: Arrays and tensors give type and shape, such as `float32[1, 20, 30]`.
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{str(dtype).removeprefix('torch.')}{list(shape)}"
    text = " ".join((repr(str(value)) if isinstance(value, Path) else repr(value)).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _is_same(value: object, default: object) -> bool:
    """Return whether an argument has its default, which a factory may have made; empty is such."""
    if default is inspect.Parameter.empty:
        return False
    if isinstance(value, tuple | list | dict) and not value:
        return True
    return value is default or (type(value) is type(default) and repr(value) == repr(default))
