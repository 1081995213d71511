"""Calls of the public interface that refuse an argument of another type by its name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    Any,
    ParamSpec,
    TypeVar,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)

from segmed.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")

NUMBERS: dict[type, type] = {int: Integral, float: Real}
"""Annotations that NumPy's numbers satisfy, too."""

LISTS = (Sequence, Collection, Iterable, list, tuple)
"""Annotations that every list, tuple, array and tensor satisfies, but no text."""


def checked(*own: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a public function or constructor that checks the types of its arguments.

    Checked are classes, unions, sequences, mappings and callables; their contents are not. The
    values of names, such as those of an engine, are checked by who knows them.

    Args:
        own: Arguments that the call checks by itself, with a message of its own.

    Returns:
        The call; it raises UsageError "NAME is a TYPE: CALL takes ...".
    """

    def door(call: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(call)

        @wraps(call)
        def passed(*args: P.args, **kwargs: P.kwargs) -> R:
            kinds, bound = kinds_of(call), signature.bind(*args, **kwargs)
            for name, value in (bound.arguments | bound.kwargs).items():
                if name not in own and name in kinds and not _fits(value, kinds[name]):
                    raise UsageError(
                        f"{name} is a {type(value).__name__}: {_title(call)} takes "
                        f"{_words(kinds[name])} there"
                    )
            return call(*args, **kwargs)

        return passed

    return door


def _title(call: Callable[..., Any]) -> str:
    return call.__qualname__.removesuffix(".__init__").removesuffix(".__call__")


@cache
def kinds_of(call: Callable[..., Any]) -> dict[str, Any]:
    """Types by the names of arguments; of options the types of their `TypedDict`."""

    def of_arguments() -> None: ...

    of_arguments.__annotations__ = {
        name: kind for name, kind in call.__annotations__.items() if name != "return"
    }
    names = vars(sys.modules[call.__module__])
    kinds = get_type_hints(of_arguments, globalns=names, include_extras=True)
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(kinds[name]) is Unpack:
            kinds |= get_type_hints(get_args(kinds.pop(name))[0])
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            kinds.pop(name)
    return kinds


def _fits(value: object, kind: Any) -> bool:
    """Return whether a value has the type of an annotation."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if kind is None or kind is NoneType:
        return value is None
    outer = origin or kind
    if outer in LISTS:
        return hasattr(value, "__iter__") and not isinstance(value, str | bytes | Mapping)
    if outer in NUMBERS:
        return isinstance(value, NUMBERS[outer]) and not isinstance(value, bool)
    if not isinstance(outer, type) or getattr(outer, "_is_protocol", False):
        return True  # a literal, a variable, anything
    return isinstance(value, outer)


def _words(kind: Any) -> str:
    """An annotation in words, such as `Path or str`."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_words(one) for one in get_args(kind)))
    if kind is None or kind is NoneType:
        return "None"
    outer = get_origin(kind) or kind
    if outer in LISTS:
        inside = [one for one in get_args(kind) if one is not Ellipsis]
        return f"a list of {_words(inside[0])}" if inside else "a list"
    if outer is Callable or outer is get_origin(Callable[[], None]):
        return "a function"
    return getattr(outer, "__name__", str(outer))
