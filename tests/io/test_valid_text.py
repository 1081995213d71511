"""Halves of surrogate pairs in parsed JSON and YAML."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segmed.io.valid_text import require_valid_text


@pytest.mark.parametrize(
    "text",
    [r'"\ud800"', r'["a", "\udc80b"]', r'{"a": {"b": ["\udfff"]}}', r'{"\ud83d": 1}'],
)
def test_half_of_a_pair_is_refused_wherever_it_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"half of a surrogate pair \('\\ud"):
        require_valid_text(json.loads(text))


@pytest.mark.parametrize("content", [r'"\ud83d\ude00"', '["Ünï", 1, null]', '{"日本": true}'])
def test_whole_characters_of_any_script_pass(content: str) -> None:
    parsed: Any = json.loads(content)
    require_valid_text(parsed)
    assert json.dumps(parsed, ensure_ascii=False).encode()
