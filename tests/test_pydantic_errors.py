"""Errors of pydantic in words: alike in plans, manifests, packages and rules."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, PositiveInt, ValidationError

from segmed.validation import LONGEST_GIVEN, first_fault


class _Inner(BaseModel, extra="forbid"):
    size: PositiveInt


class _Outer(BaseModel, extra="forbid"):
    parts: tuple[_Inner, ...]


@pytest.mark.parametrize(
    ("content", "field", "num_others"),
    [
        ({"parts": [{"size": 1}, {"size": -2}]}, "parts.1.size", 0),
        ({"parts": [{"size": 1}], "colour": 3}, "colour", 0),
        ({}, "parts", 0),
        ({"parts": [{"size": "x"}, {"size": 0}, {}]}, "parts.0.size", 2),
        ([1], "", 0),
    ],
)
def test_first_wrong_field_is_named(content: object, field: str, num_others: int) -> None:
    with pytest.raises(ValidationError) as caught:
        _Outer.model_validate(content)
    fault = first_fault(caught.value)
    assert (fault.field, fault.num_others) == (field, num_others)
    assert str(fault).startswith(f"field {field!r}: " if field else fault.message)
    assert str(fault).endswith(f"(and {num_others} more)" if num_others else fault.message)


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(ValidationError) as caught:
        _Inner.model_validate({"size": "x" * 500})
    assert len(first_fault(caught.value).given) == LONGEST_GIVEN
